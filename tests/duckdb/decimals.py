"""Generates expressions of decimals: the columns `d` decimal(10,2), `e` decimal(18,4), `k`
decimal(5,0) and `w` decimal(20,10), constants, and what is computed of them.

Where the two differ on purpose: `/` of decimals is a decimal with four more digits than its left
operand, the others dropped, and a float in DuckDB; a cast to an integer drops the fraction; a
constant is cast to the type of a column beside it only if it keeps its value, and zeros at its end
are no digits of it; and a boolean is not cast to a decimal. The common type of two decimals never
drops digits behind the point, which DuckDB does if both need more than 38 digits.
"""

from forms import Expr, form, forms
from scalars import Scalars

SCALES = {"d": 2, "e": 4, "k": 0}
# What `/` adds to the digits of its left operand.
MORE_DIGITS = 4


def quotient(left, right):
    """`left / right` of two columns, in DuckDB with integers, which drop what remains."""
    scale = SCALES[left] + MORE_DIGITS
    up = scale + SCALES[right] - SCALES[left]
    whole = (
        f"(cast({left} * 1e{SCALES[left]}::hugeint as hugeint) * 1e{up}::hugeint)"
        f" // cast({right} * 1e{SCALES[right]}::hugeint as hugeint)"
    )
    unit = f"'{10 ** -scale:.{scale}f}'::decimal({scale + 1},{scale})"
    return Expr(
        f"({left} / nullif({right}, 0))", f"(cast({whole} as decimal(21,0)) * {unit})"
    )


class Decimals(Scalars):
    def top(self, depth):
        kinds = [self.decimal] * 4 + [self.test, self.number, self.text]
        return self.pick(*kinds)(depth)

    def constant(self):
        constants = ["1.5", "-0.25", "0.0", "100.005", "2", "-3", "0.125"]
        return Expr.same(self.pick(*constants))

    def decimal(self, depth):
        if depth <= 0:
            return Expr.same(self.pick("d", "e", "k", "d", "e", "w"))
        d, e, c = (lambda: self.decimal(depth - 1)), (lambda: self.decimal(0)), self.constant
        p, q = self.boolean, self.test
        places = Expr.same(self.pick("0", "1", "2", "-1"))
        to = Expr.same(self.pick("decimal(10,2)", "decimal(12,3)", "decimal(26,6)", "decimal(4,1)"))
        return self.pick(
            lambda: form("({} + {})", d(), e()),
            lambda: form("({} - {})", d(), e()),
            lambda: form("({} * {})", self.decimal(0), e()),
            lambda: form("({} + {})", d(), c()),
            lambda: form("({} - {})", c(), d()),
            lambda: form("({} * {})", d(), c()),
            lambda: form("({} % {})", d(), Expr.same(self.pick("3", "0.7", "-2.5", "0.001"))),
            lambda: form("({} % nullif({}, 0))", d(), e()),
            lambda: quotient(self.pick(*SCALES), self.pick(*SCALES)),
            lambda: form("abs({})", d()),
            lambda: form("(-{})", d()),
            lambda: form("round({})", d()),
            lambda: form("round({}, {})", d(), places),
            lambda: form("floor({})", d()),
            lambda: form("ceil({})", d()),
            lambda: form("trunc({})", d()),
            lambda: form("greatest({}, {})", d(), e()),
            lambda: form("least({}, {})", d(), c()),
            lambda: form("coalesce({}, {})", d(), e()),
            lambda: form("coalesce({}, {})", d(), c()),
            lambda: form("nullif({}, {})", d(), c()),
            lambda: form("case when {} then {} else {} end", p(depth - 1), d(), e()),
            lambda: form("case when {} then {} else {} end", q(depth - 1), d(), c()),
            lambda: form("cast({} as {})", d(), to),
            lambda: form("try_cast({} as {})", d(), to),
            lambda: form("cast({} as {})", self.constant(), to),
            lambda: form("cast({} as {})", self.integer(0), to),
            lambda: form("cast({} as {})", self.float(0), to),
            lambda: form("try_cast({} as {})", self.string(0), to),
            lambda: form("cast(cast({} as text) as {})", d(), to),
        )()

    def test(self, depth):
        """A condition."""
        if depth <= 0:
            return Expr.same(self.pick("d > 0", "e < d", "k = 1"))
        d, e, c = (lambda: self.decimal(depth - 1)), (lambda: self.decimal(0)), self.constant
        compare = self.pick("=", "<>", "<", "<=", ">", ">=")
        return self.pick(
            lambda: form(f"({{}} {compare} {{}})", d(), e()),
            lambda: form(f"({{}} {compare} {{}})", d(), c()),
            lambda: form(f"({{}} {compare} {{}})", d(), self.integer(0)),
            lambda: form(f"({{}} {compare} {{}})", d(), self.float(0)),
            lambda: form(f"({{}} {compare} '1.25')", Expr.same(self.pick("d", "e", "w"))),
            lambda: form("({} between {} and {})", d(), c(), e()),
            lambda: form("({} in ({}, 1.25, 7))", d(), e()),
            lambda: form("({} not in ({}, 1.250))", d(), c()),
            lambda: form("({} is distinct from {})", d(), e()),
            lambda: form("({} is null)", d()),
        )()

    def number(self, depth):
        """An integer or a float of a decimal."""
        d = lambda: self.decimal(depth - 1)
        x = lambda: self.float(0)
        return self.pick(
            lambda: form("cast(trunc({}) as bigint)", d()),
            lambda: form("cast({} as double)", d()),
            lambda: form("({} + {})", d(), x()),
            lambda: form("({} * {})", x(), d()),
            lambda: form("sqrt(abs({}))", d()),
            lambda: form("ln(abs({}) + 1)", d()),
            lambda: form("power({}, 2)", form("cast({} as double)", d())),
            lambda: forms("sign({})", "sign({})::double", d()),
            lambda: form("coalesce({}, {})", x(), d()),
            lambda: form("cast(cast({} as float) as double)", d()),
            lambda: form("exp(least({}, 3))", d()),
        )()

    def text(self, depth):
        """A string of a decimal, and of computed ones with the same number of digits."""
        d = self.decimal(depth - 1)
        return self.pick(
            lambda: form("cast({} as text)", self.decimal(0)),
            lambda: form("({} || '|')", self.decimal(0)),
            lambda: form("concat({}, '|', {})", self.decimal(0), self.decimal(0)),
            lambda: form("cast(cast({} as decimal(30,8)) as text)", d),
            lambda: form("cast(({} + 1.5) as text)", self.decimal(0)),
            lambda: form("cast(({} * 0.125) as text)", self.decimal(0)),
            lambda: form("cast(round({}, 1) as text)", self.decimal(0)),
            lambda: form("cast(floor({}) as text)", self.decimal(0)),
        )()
