"""Generates expressions of integers, floats, strings, booleans, dates and times."""

import random

from forms import Expr, form, forms


class Scalars:
    """Generates expressions of each type, with a limit for their depth."""

    # An integer of a boolean, and of a float without a fraction.
    of_boolean = "cast({} as bigint)"
    of_whole = "cast(floor({}) as bigint)"
    # The columns of times and dates.
    moment, day = "moment", "day"

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def top(self, depth):
        """An expression of what this generates."""
        return self.any(depth)

    def any(self, depth):
        """An expression of any type of scalars."""
        kinds = [self.integer, self.float, self.string, self.boolean, self.time, self.date]
        return self.pick(*kinds)(depth)

    def integer(self, depth):
        if depth <= 0:
            text = self.pick("a", "b", "0", "1", "-3", "17", "cast(null as bigint)")
            return Expr.same(text)
        i, j = (lambda: self.integer(depth - 1)), (lambda: self.integer(0))
        s, p, x, at = self.string, self.boolean, self.float, self.time
        return self.pick(
            lambda: form("({} + {})", i(), j()),
            lambda: form("({} - {})", i(), j()),
            lambda: form("(nullif({} % 1000, 0) * {})", i(), Expr.same(self.pick("2", "-5"))),
            lambda: forms("({} / {})", "({} // {})", i(), Expr.same(self.pick("3", "-2", "10"))),
            lambda: form("({} % {})", i(), Expr.same(self.pick("3", "-2", "10"))),
            lambda: form("abs({})", i()),
            lambda: form("greatest({}, {})", i(), j()),
            lambda: form("least({}, {})", i(), j()),
            lambda: form("coalesce({}, {})", i(), j()),
            lambda: form("nullif({}, {})", i(), j()),
            lambda: form("case when {} then {} else {} end", p(depth - 1), i(), j()),
            lambda: form("case {} when {} then {} end", i(), j(), j()),
            lambda: form("length({})", s(depth - 1)),
            lambda: form("strpos({}, {})", s(depth - 1), s(0)),
            lambda: form(self.of_whole, x(0)),
            lambda: form("cast(extract(year from {}) as bigint)", at(depth - 1)),
            lambda: form("cast(extract(month from {}) as bigint)", at(depth - 1)),
            lambda: form("cast(extract(doy from {}) as bigint)", at(depth - 1)),
            lambda: form("cast(date_part('hour', {}) as bigint)", at(depth - 1)),
            lambda: form("ascii({})", Expr.same(self.pick("'a'", "'ä'", "'xyz'"))),
            lambda: form("(-{})", i()),
            lambda: form("({} & {})", i(), j()),
            lambda: form("({} | {})", i(), j()),
            lambda: forms("({} # {})", "xor({}, {})", i(), j()),
            lambda: form("(~{})", i()),
            lambda: form("(~{} + {})", i(), j()),
            lambda: form("({} & {} | {} + {})", i(), j(), j(), j()),
            lambda: form("(({} & 1023) << {})", i(), Expr.same(self.pick("0", "3", "53"))),
            lambda: forms(
                "({} >> {})", "({}::bigint >> {})", i(), Expr.same(self.pick("0", "1", "63"))
            ),
            lambda: form("gcd({}, {})", i(), j()),
            lambda: form("bit_length({})", s(depth - 1)),
            lambda: form("try_cast({} as bigint)", s(depth - 1)),
            lambda: form(self.of_boolean, p(depth - 1)),
            lambda: form("position({} in {})", s(0), s(depth - 1)),
            lambda: form("cast(date_part('week', {}) as bigint)", at(depth - 1)),
            lambda: form("cast(date_part('quarter', {}) as bigint)", at(depth - 1)),
            lambda: form("cast(date_part('dow', {}) as bigint)", at(depth - 1)),
            lambda: form("cast(date_part('day', {}) as bigint)", self.date(depth - 1)),
            lambda: form("({} - {})", self.date(depth - 1), self.date(0)),
        )()

    def float(self, depth):
        if depth <= 0:
            return Expr.same(self.pick("x", "y", "0.5::double", "cast(null as double)"))
        x, y = (lambda: self.float(depth - 1)), (lambda: self.float(0))
        i, p = self.integer, self.boolean
        return self.pick(
            lambda: form("({} + {})", x(), y()),
            lambda: form("({} - {})", x(), y()),
            lambda: form("({} * {})", x(), y()),
            lambda: form("({} / {})", x(), Expr.same(self.pick("2.0::double", "0.3::double"))),
            lambda: form("abs({})", x()),
            lambda: form("floor({})", x()),
            lambda: form("ceil({})", x()),
            lambda: form("trunc({})", x()),
            lambda: form("sqrt(abs({}))", x()),
            lambda: form("power({}, 2)", x()),
            lambda: form("ln(abs({}) + 1)", x()),
            lambda: form("exp(least({}, 3.0::double))", x()),
            lambda: form("sin({})", x()),
            lambda: form("greatest({}, {})", x(), y()),
            lambda: form("coalesce({}, {})", x(), y()),
            lambda: form("case when {} then {} else {} end", p(depth - 1), x(), y()),
            lambda: form("cast({} as double)", i(depth - 1)),
            lambda: form("({} + {})", x(), i(0)),
            lambda: form("round({}, 1)", y()),
            lambda: forms("sign({})", "sign({})::double", x()),
            lambda: form("cbrt({})", x()),
            lambda: form("log10(abs({}) + 1)", x()),
            lambda: form("atan2({}, {})", x(), y()),
            lambda: form("degrees({})", x()),
            lambda: form("try_cast({} as double)", self.string(depth - 1)),
            lambda: forms("date_part('epoch', {})", "epoch({})", self.time(depth - 1)),
            lambda: forms(
                "date_part('epoch', {} - {})",
                "epoch({} - {})",
                self.time(depth - 1),
                self.time(0),
            ),
        )()

    def string(self, depth):
        if depth <= 0:
            return Expr.same(self.pick("s", "t", "''", "'l'", "'ö'", "cast(null as text)"))
        s, t = (lambda: self.string(depth - 1)), (lambda: self.string(0))
        n = Expr.same(self.pick("1", "2", "5"))
        return self.pick(
            lambda: form("({} || {})", s(), t()),
            lambda: form("concat({}, {}, '!')", s(), t()),
            lambda: form("concat_ws('-', {}, {})", s(), t()),
            lambda: form("upper({})", s()),
            lambda: form("lower({})", s()),
            lambda: form("trim({})", s()),
            lambda: form("ltrim({})", s()),
            lambda: form("trim(both from {})", s()),
            lambda: form("trim(leading {} from {})", t(), s()),
            lambda: form("trim(trailing '%_ ' from {})", s()),
            lambda: form("trim('aHd' from {})", s()),
            lambda: form("trim(both {} || 'l' from {})", t(), s()),
            lambda: form("rtrim({})", s()),
            lambda: form("reverse({})", s()),
            lambda: form("substr({}, {})", s(), n),
            lambda: form("substr({}, {}, 3)", s(), n),
            lambda: form("substring({} from {} for 2)", s(), n),
            lambda: form("left({}, {})", s(), n),
            lambda: form("right({}, {})", s(), n),
            lambda: form("left({}, -1)", s()),
            lambda: form("replace({}, 'l', {})", s(), t()),
            lambda: form("repeat({}, {})", t(), n),
            lambda: form("lpad({}, 6, '*')", s()),
            lambda: form("rpad({}, 6, '*')", s()),
            lambda: form("split_part({}, 'X', {})", s(), n),
            lambda: form("translate({}, 'abc', 'xyz')", s()),
            lambda: form("coalesce({}, {})", s(), t()),
            lambda: form("nullif({}, {})", s(), t()),
            lambda: form("md5({})", s()),
            lambda: form("cast({} as text)", self.integer(depth - 1)),
            lambda: form("case when {} then {} end", self.boolean(depth - 1), s()),
            lambda: form("regexp_replace({}, '[a-m]+', '<>', 'g')", s()),
            lambda: form("substr({}, 0, 2)", s()),
            lambda: form("right({}, -2)", s()),
            lambda: form("split_part({}, 'X', -1)", s()),
            lambda: form("ltrim({}, 'aH')", s()),
            lambda: form("greatest({}, {})", s(), t()),
            lambda: form("least({}, {})", s(), t()),
            lambda: form("concat_ws(',', {}, null, {})", s(), t()),
            lambda: form("cast({} as text)", self.boolean(depth - 1)),
            lambda: form("cast(cast({} as date) as text)", self.time(depth - 1)),
            lambda: form("chr({})", Expr.same(self.pick("65", "228", "8364"))),
        )()

    def boolean(self, depth):
        if depth <= 0:
            return Expr.same(self.pick("p", "true", "false", "cast(null as boolean)", "a > 0"))
        p, q = (lambda: self.boolean(depth - 1)), (lambda: self.boolean(0))
        i, x, s, at = self.integer, self.float, self.string, self.time
        compare = self.pick("=", "<>", "<", "<=", ">", ">=")
        return self.pick(
            lambda: form("({} and {})", p(), q()),
            lambda: form("({} or {})", p(), q()),
            lambda: form("(not {})", p()),
            lambda: form(f"({{}} {compare} {{}})", i(depth - 1), i(0)),
            lambda: form(f"({{}} {compare} {{}})", x(depth - 1), x(0)),
            lambda: form(f"({{}} {compare} {{}})", s(depth - 1), s(0)),
            lambda: form(f"({{}} {compare} {{}})", at(depth - 1), at(0)),
            lambda: form(f"({{}} {compare} {{}})", i(depth - 1), x(0)),
            lambda: form("({} between {} and {})", i(depth - 1), i(0), i(0)),
            lambda: form("({} in ({}, 7, 42))", i(depth - 1), i(0)),
            lambda: form("({} not in ({}, 'l'))", s(depth - 1), s(0)),
            lambda: form("({} is null)", self.any(depth - 1)),
            lambda: form("({} is not null)", self.any(depth - 1)),
            lambda: form("({} is distinct from {})", i(depth - 1), i(0)),
            lambda: form("({} like '%l_')", s(depth - 1)),
            lambda: form("({} ilike 'h%')", s(depth - 1)),
            lambda: form("({} not like '%X%')", s(depth - 1)),
            lambda: form("starts_with({}, {})", s(depth - 1), s(0)),
            lambda: forms("({} ~ '[a-c]+$')", "regexp_matches({}, '[a-c]+$')", s(depth - 1)),
            lambda: form("coalesce({}, {})", p(), q()),
            lambda: form("({} is true)", p()),
            lambda: form("ends_with({}, {})", s(depth - 1), s(0)),
            lambda: form("contains({}, {})", s(depth - 1), s(0)),
            lambda: forms("({} !~ 'l+')", "(not regexp_matches({}, 'l+'))", s(depth - 1)),
            lambda: form("({} > '2000-01-01')", at(depth - 1)),
            lambda: form("(cast({} as date) = '2024-02-29')", at(depth - 1)),
            lambda: form("({} is not false)", p()),
            lambda: form("({} in ({}, {}))", i(depth - 1), i(depth - 1), i(0)),
            lambda: form("({} in ({}, 'l'))", s(depth - 1), s(depth - 1)),
            lambda: form("({} not in ({}, {}))", x(depth - 1), x(0), x(depth - 1)),
            lambda: form(f"({{}} {compare} {{}})", self.date(depth - 1), self.date(0)),
            lambda: form(f"({{}} {compare} {{}})", self.date(depth - 1), at(0)),
            lambda: form("({} in ({}, date '2024-12-31'))", self.date(0), self.date(depth - 1)),
            lambda: form(
                f"(({{}} - {{}}) {compare} interval '100 days')", at(depth - 1), self.time(0)
            ),
        )()

    def time(self, depth):
        if depth <= 0:
            return Expr.same(self.pick(self.moment, "timestamp '2024-03-10 01:02:03'"))
        at = lambda: self.time(depth - 1)
        unit = self.pick("year", "quarter", "month", "week", "day", "hour", "minute", "second")
        return self.pick(
            lambda: forms(
                f"date_trunc('{unit}', {{}})", f"date_trunc('{unit}', {{}})::timestamp", at()
            ),
            lambda: form("({} + interval '1 day')", at()),
            lambda: form("({} - interval '90 minutes')", at()),
            lambda: form("({} + interval '1 month')", at()),
            lambda: form("({} - interval '1 year')", at()),
            lambda: form("greatest({}, {})", at(), self.time(0)),
            lambda: forms(
                "date_bin('15 minutes', {})",
                "time_bucket(interval '15 minutes', {}, timestamp '1970-01-01')",
                at(),
            ),
            lambda: form("coalesce({}, {})", at(), self.time(0)),
            lambda: form("case when {} then {} end", self.boolean(depth - 1), at()),
            lambda: form("({} + interval '36 hours')", self.date(depth - 1)),
            lambda: form("coalesce({}, {})", self.date(depth - 1), self.time(0)),
            lambda: form("cast({} as timestamp)", self.date(depth - 1)),
            lambda: form("least({}, {})", self.date(depth - 1), self.time(0)),
        )()

    def date(self, depth):
        """A date. In DuckDB, a date with an interval of days is a timestamp."""
        if depth <= 0:
            return Expr.same(self.pick(self.day, "date '2023-12-31'", "cast(null as date)"))
        day = lambda: self.date(depth - 1)
        steps = ["1 day", "1 month", "13 months", "2 weeks", "1 year 2 days"]
        step = f"interval '{self.pick(*steps)}'"
        return self.pick(
            lambda: forms(f"({{}} + {step})", f"({{}} + {step})::date", day()),
            lambda: forms(f"({{}} - {step})", f"({{}} - {step})::date", day()),
            lambda: form("cast({} as date)", self.time(depth - 1)),
            lambda: form("greatest({}, {})", day(), self.date(0)),
            lambda: form("coalesce({}, {})", day(), self.date(0)),
            lambda: form("nullif({}, {})", day(), self.date(0)),
            lambda: form("case when {} then {} end", self.boolean(depth - 1), day()),
            lambda: form("cast(cast({} as text) as date)", day()),
        )()


class UntypedScalars(Scalars):
    """For fields without a type. A cast is one of the text of a value: `true` and `1.0` are no
    integers. A time is one beside a time or an interval, and else a string.
    """

    of_boolean = "cast(({} is true) as bigint)"
    of_whole = "cast(floor(cast({} as double)) as bigint)"
    moment, day = "cast(moment as timestamp)", "cast(day as date)"

    def top(self, depth):
        return self.pick(self.any, self.any, self.any, self.of_time)(depth)

    def of_time(self, depth):
        """A use of a field that makes it a time."""
        compare = self.pick("=", "<>", "<", "<=", ">", ">=")
        unit = self.pick("year", "month", "day", "hour")
        at = self.time(depth - 1)
        return self.pick(
            lambda: form(f"(moment {compare} {{}})", at),
            lambda: form(f"({{}} {compare} moment)", at),
            lambda: form("(moment in ({}, timestamp '2000-01-01'))", at),
            lambda: form("(moment + interval '1 month')"),
            lambda: form("(moment - interval '90 minutes')"),
            lambda: form(f"(date_trunc('{unit}', moment + interval '1 day'))::timestamp"),
            lambda: form(f"(day {compare} {{}})", self.date(depth - 1)),
            lambda: form("(moment - {} > interval '100 days')", at),
        )()
