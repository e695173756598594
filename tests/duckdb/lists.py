"""Generates expressions of lists: the columns `l` of integers, `m` of strings and `n` of decimals,
`o` of floats, `r` of lists, and the struct `u` of an integer, a string and a list.

Where the two differ on purpose: indexes begin at 0, as in JSON; as text, lists are JSON, in which
decimals keep their zeros; a string that is split at the empty string is one part, and a list
without elements is joined to the empty string, as in PostgreSQL; and the position of NULL is NULL.
"""

from forms import Expr, form, forms
from scalars import Scalars, UntypedScalars


class Lists(Scalars):
    # A function of the number of elements.
    length = "length"

    def top(self, depth):
        kinds = [self.number, self.element, self.test, self.text, self.list]
        return self.pick(*kinds)(depth)

    def list(self, depth, names=("l", "m", "n", "o", "r", "u.v")):
        name = Expr.same(self.pick(*names))
        if depth <= 0:
            return name
        p, s = self.boolean(depth - 1), self.string(depth - 1)
        by = Expr.same(self.pick("'l'", "'X'", "' '", "'%_'", "'ö'"))
        return self.pick(
            lambda: form("case when {} then {} end", p, name),
            lambda: form("coalesce({}, {})", name, name),
            lambda: forms("string_to_array({}, {})", "string_split({}, {})", s, by),
            lambda: Expr("r[0]", "r[1]"),
            lambda: Expr("r[1]", "r[2]"),
        )()

    def element(self, depth):
        """An element, or a field of a struct."""
        at = self.pick(0, 1, 2, 7)
        name = self.pick("l", "m", "n", "o", "u.v")
        return self.pick(
            lambda: Expr(f"{name}[{at}]", f"{name}[{at + 1}]"),
            lambda: Expr(f"coalesce(l[{at}], a)", f"coalesce(l[{at + 1}], a)"),
            lambda: Expr(f"(l[{at}] + l[0])", f"(l[{at + 1}] + l[1])"),
            lambda: Expr(f"(m[{at}] || s)", f"(m[{at + 1}] || s)"),
            lambda: Expr(f"r[0][{at}]", f"r[1][{at + 1}]"),
            lambda: Expr.same(self.pick("u.i", "u.t", "u.i + a", "upper(u.t)")),
        )()

    def item(self, name):
        """A value of the type of the elements of a list."""
        items = {
            "l": ["1", "a", "cast(null as bigint)", "2", "9007199254740993", "b + 1"],
            "m": ["'a'", "s", "t", "cast(null as text)", "'x' || 'y'", "''"],
            "n": ["1.50", "0.00", "-7.25"],
            "o": ["x + 1", "0.5::double", "0.0::double", "-0.0::double"],
            "u.v": ["a", "3"],
        }
        return Expr.same(self.pick(*items[name]))

    def number(self, depth):
        name = self.pick("l", "m", "n", "o", "u.v")
        lists = self.list(depth - 1)
        known = lambda: Expr.same(self.item(name).ours.replace("cast(null as ", "cast('7' as "))
        return self.pick(
            lambda: forms("array_length({})", "len({})", lists),
            lambda: forms("cardinality({})", "len({})", lists),
            lambda: forms(f"{self.length}({{}})", "length({})", lists),
            lambda: form(f"list_position({name}, {{}})", known()),
            lambda: form(f"array_position({name}, {{}})", known()),
        )()

    def test(self, depth):
        name = self.pick("l", "m", "n", "o", "u.v")
        return self.pick(
            lambda: form(f"list_contains({name}, {{}})", self.item(name)),
            lambda: form(f"array_has({name}, {{}})", self.item(name)),
            lambda: form(f"(not list_contains({name}, {{}}))", self.item(name)),
            lambda: form("({} is null)", self.list(depth - 1)),
            lambda: form("({} = {})", Expr.same("l"), Expr.same(self.pick("l", "u.v"))),
            lambda: form("({} <> {})", Expr.same("l"), Expr.same(self.pick("l", "u.v"))),
            lambda: form("(l is distinct from u.v)"),
            lambda: form("(u is null)"),
        )()

    def text(self, depth):
        name = Expr.same(self.pick("l", "m"))
        lists = self.list(depth - 1, ("l", "m", "o", "r"))
        return self.pick(
            lambda: forms(
                "array_to_string({}, ', ')",
                "case when {0} is not null then coalesce(array_to_string({0}, ', '), '') end",
                name,
            ),
            lambda: forms("{}::text", "to_json({})::text", lists),
            lambda: forms("({} || '')", "(to_json({})::text || '')", lists),
            lambda: forms("to_json({})::text", "to_json({})::text", lists),
            lambda: forms("u::text", "to_json(u)::text"),
            lambda: forms("struct(a, s)::text", "to_json({{'c0': a, 'c1': s}})::text"),
            lambda: forms(
                "named_struct('x', a, 'y', m)::text", "to_json({{'x': a, 'y': m}})::text"
            ),
        )()


class UntypedLists(Lists, UntypedScalars):
    """For fields without a type: the argument of `length` has to be a string."""

    length = "array_length"
    top = Lists.top
