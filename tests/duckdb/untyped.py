"""Generates expressions of fields without a known type, whose values are of any kind: numbers,
strings, booleans, `null`, missing, objects and lists.

In DuckDB the fields are JSON, and each expression says what the language page says of such a
value: beside a number it is a number, or NULL if it is not one; beside a string, its text.
"""

from forms import Expr, forms
from scalars import Scalars

# The rows: `val` and `other` are of any kind, `num` is a number of JSON or a string with one,
# `nest` an object and `list` a list, apart from NULLs.
MIXED = [
    '{"id":0,"val":5,"other":5.0,"num":5,"nest":{"a":1,"b":"x","c":[1,{"d":2}]},"list":[1,2]}',
    '{"id":1,"val":5.5,"other":"5.5","num":5.5,"nest":{"a":"1","b":null},"list":["a",null,"b"]}',
    '{"id":2,"val":"12","other":12,"num":"12","nest":{"a":2.5},"list":[]}',
    '{"id":3,"val":"abc","other":"abd","num":-7,"nest":{"a":true,"b":"äöü"},"list":[1.5,"1.5"]}',
    '{"id":4,"val":"","other":"","num":0,"nest":{},"list":[[1],{"a":2}]}',
    '{"id":5,"val":null,"other":1,"num":null,"nest":null,"list":null}',
    '{"id":6}',
    '{"id":7,"val":true,"other":"true","num":"-2.25","nest":{"a":null,"b":""},"list":[true,2]}',
    '{"id":8,"val":{"a":1},"other":{"a":1},"num":1000,"nest":{"c":[]},"list":[9007199254740993]}',
    '{"id":9,"val":[1,"a"],"other":[1],"num":2.5,"nest":{"b":"a\\"b\\\\c"},"list":["x y"]}',
    '{"id":10,"val":9007199254740993,"other":9007199254740992,"num":9007199254740993}',
    '{"id":11,"val":-0.5,"other":-0.5,"num":-0.5,"nest":{"a":-3},"list":[0,-1]}',
    '{"id":12,"val":"2024-02-29","other":"2024-02-29T10:00:00Z","num":3}',
    '{"id":13,"val":"x\\ty","other":"x","num":1}',
]


def text(name):
    return Expr(f"{name}::text", f"({name}->>'$')")


def number(name):
    return Expr(name, f"try_cast({name}->>'$' as double)")


def exact(name):
    """The decimal of a number, which has all digits of the values here."""
    return Expr(name, f"try_cast({name}->>'$' as decimal(30,6))")


def value(name):
    """The value itself, NULL for `null`."""
    return Expr(name, f"case when {name}->>'$' is null then null else {name} end")


def both(left, op, right):
    """Two such values: compared as numbers if both are numbers of JSON, else as strings."""
    are_numbers = " and ".join(
        f"json_type({name}) in ('BIGINT', 'UBIGINT', 'DOUBLE')" for name in (left, right)
    )
    theirs = (
        f"case when {are_numbers} then {number(left).theirs} {op} {number(right).theirs}"
        f" else {text(left).theirs} {op} {text(right).theirs} end"
    )
    return Expr(f"({left} {op} {right})", f"({theirs})")


class Untyped(Scalars):
    def top(self, depth):
        return self.pick(self.test, self.text, self.json, self.computed, self.part, self.nested)(
            depth
        )

    def test(self, depth):
        name = self.pick("val", "other", "num", "nest.a")
        if name == "nest.a":
            return self.test_of_part()
        j, t, n = number(name), text(name), Expr.same(self.pick("5", "12", "5.5", "-0.5::double"))
        s = Expr.same(self.pick("'abc'", "'12'", "''", "'true'", "'5.5'"))
        op = self.pick("=", "<>", "<", "<=", ">", ">=")
        large = Expr.same(self.pick("9007199254740993", "9007199254740992"))
        plain = Expr(name, t.theirs)
        return self.pick(
            lambda: forms(f"({{}} {op} {{}})", f"({{}} {op} {{}})", j, n),
            lambda: forms(f"({{}} {op} {{}})", f"({{}} {op} {{}})", n, j),
            lambda: forms(f"({{}} {op} {{}})", f"({{}} {op} {{}})", exact(name), large),
            lambda: forms(f"({{}} {op} {{}})", f"({{}} {op} {{}})", plain, s),
            lambda: both("val", op, "other"),
            lambda: forms("({} in ({}, 12))", "({} in ({}, 12))", j, n),
            lambda: forms("({} in ({}, 'x'))", "({} in ({}, 'x'))", plain, s),
            lambda: forms("({} not in ({}, 7))", "({} not in ({}, 7))", j, n),
            lambda: forms("({} between 1 and {})", "({} between 1 and {})", j, n),
            lambda: forms("({} is null)", "({} is null)", plain),
            lambda: forms("({} is not null)", "({} is not null)", plain),
            lambda: forms("({} is distinct from {})", "({} is distinct from {})", j, n),
            lambda: forms("({} like '%b%')", "({} like '%b%')", plain),
            lambda: forms("({} ~ '^[a-c]+$')", "regexp_matches({}, '^[a-c]+$')", plain),
            lambda: forms(
                f"({{}} {op} date '2024-02-29')",
                f"(try_cast({{}} as date) {op} date '2024-02-29')",
                Expr("val", f"case when id = 12 then {text('val').theirs} end"),
            ),
        )()

    def test_of_part(self):
        part = text_at("nest", "a")
        return self.pick(
            lambda: forms("({} = 1)", "(try_cast({} as double) = 1)", part),
            lambda: forms("({} = '1')", "({} = '1')", part),
            lambda: forms("({} > 0)", "(try_cast({} as double) > 0)", part),
            lambda: forms("({} is null)", "({} is null)", part),
        )()

    def text(self, depth):
        t = text(self.pick("val", "other", "num", "list", "nest"))
        bare = Expr(t.ours.removesuffix("::text"), t.theirs)
        other = text("other")
        return self.pick(
            lambda: t,
            lambda: forms("({} || '!')", "({} || '!')", bare),
            lambda: forms("({} || {})", "({} || {})", bare, text("val")),
            lambda: forms("upper({})", "upper({})", t),
            lambda: forms("length({})", "length({})", t),
            lambda: forms("substr({}, 2)", "substr({}, 2)", t),
            lambda: forms("replace({}, 'a', '<>')", "replace({}, 'a', '<>')", t),
            lambda: forms("concat({}, '-', {})", "concat({}, '-', {})", t, other),
            lambda: forms("coalesce({}, {})", "coalesce({}, {})", t, other),
            lambda: forms("nullif({}, '12')", "nullif({}, '12')", t),
            lambda: forms("md5({})", "md5({})", t),
            lambda: forms("left({}, 2)", "left({}, 2)", t),
        )()

    def json(self, depth):
        v = value(self.pick("val", "other", "num", "list", "nest"))
        j = Expr(v.ours, number(v.ours).theirs)
        return self.pick(
            lambda: v,
            lambda: forms("coalesce({}, 7)", "coalesce({}, 7::json)", v),
            lambda: Expr(
                f"nullif({v.ours}, 5)", f"case when {j.theirs} = 5 then null else {v.theirs} end"
            ),
            lambda: Expr(
                f"case when {v.ours} > 5 then {v.ours} end",
                f"case when {j.theirs} > 5 then {v.theirs} end",
            ),
            lambda: Expr(
                f"case {v.ours} when 5 then 'five' when 12 then 'twelve' else '?' end",
                f"case {j.theirs} when 5 then 'five' when 12 then 'twelve' else '?' end",
            ),
            lambda: forms("to_json({})", "{}", v),
            lambda: Expr(
                f"nvl2({v.ours}, 1, 2)", f"case when {v.theirs} is null then 2 else 1 end"
            ),
            lambda: Expr(f"try_cast({v.ours} as double)", j.theirs),
            lambda: Expr(f"try_cast({v.ours} as decimal(30,6))", exact(v.ours).theirs),
            lambda: Expr(f"try_cast({v.ours} as boolean)", f"try_cast({v.ours}->>'$' as boolean)"),
        )()

    def computed(self, depth):
        """Numbers of `num`, whose rows are all numbers: integers stay integers."""
        num, n = exact("num"), Expr.same(self.pick("2", "3", "-4"))
        is_integer = "regexp_full_match(num->>'$', '-?[0-9]+')"
        whole, float = "(num->>'$')::hugeint", "(num->>'$')::double"
        places = self.pick("0", "1", "-1")
        return self.pick(
            lambda: forms("({} + {})", "({} + {})", num, n),
            lambda: forms("({} - {})", "({} - {})", n, num),
            lambda: forms("({} * {})", "({} * {})", num, n),
            lambda: forms("({} + {})", "({} + {})", num, num),
            lambda: Expr(
                f"case when num::text ~ '^-?[0-9]+$' then num / {n.ours} end",
                f"case when {is_integer} then {whole} // {n.ours} end",
            ),
            lambda: Expr(
                f"case when num::text !~ '^-?[0-9]+$' then num / {n.ours} end",
                f"case when not {is_integer} then {float} / {n.ours} end",
            ),
            lambda: forms("({} % {})", "({} % {})", num, n),
            lambda: forms("(-{})", "(-{})", num),
            lambda: forms("abs({})", "abs({})", num),
            lambda: forms("floor({})", "floor({})", num),
            lambda: forms("ceil({})", "ceil({})", num),
            lambda: forms("trunc({})", "trunc({})", num),
            lambda: forms("round({})", "round({})", num),
            lambda: forms(f"round({{}}, {places})", f"round({{}}, {places})", num),
            lambda: forms("greatest({}, {}) + 0", "greatest({}, {})", num, n),
            lambda: forms("least({}, {}) + 0", "least({}, {})", num, n),
            lambda: forms("coalesce({}, 0.5) + 0", "coalesce({}, 0.5)", num),
            lambda: Expr("num::double + 0.5", f"{float} + 0.5"),
            lambda: Expr("sqrt(abs(num::double))", f"sqrt(abs({float}))"),
            lambda: Expr("num::decimal(30,6)", exact("num").theirs),
        )()

    def part(self, depth):
        """A part of a value."""
        path = self.pick("a", "b", "c", "c[0]", "c[1].d", "zz")
        part = text_at("nest", path)
        return self.pick(
            lambda: Expr(f"nest.{path}", value_at("nest", path).theirs),
            lambda: forms("{}::text", "{}", part),
            lambda: forms("({} || '.')", "({} || '.')", part),
            lambda: Expr(f"val.{path}", value_at("val", path).theirs),
            lambda: Expr("list[0]", value_at("list", "[0]").theirs),
            lambda: Expr("list[1]", value_at("list", "[1]").theirs),
            lambda: forms(
                "coalesce({}, 'none')",
                "coalesce({}, 'none')",
                Expr(f"nest.{path}::text", part.theirs),
            ),
        )()

    def nested(self, depth):
        """Functions of lists."""
        items = "json_extract(list, '$[*]')"
        item_text = "json_extract_string(x, '$')"
        item = self.pick("1", "2", "0", "9007199254740993", "1.5")
        word = self.pick("a", "1.5", "x y", "zz")
        is_number = "json_type(x) in ('BIGINT', 'UBIGINT', 'DOUBLE')"
        is_item = f"{is_number} and try_cast({item_text} as decimal(30,6)) = {item}"
        is_word = f"json_type(x) = 'VARCHAR' and {item_text} = '{word}'"
        joined = f"array_to_string(list_transform({items}, x -> {item_text}), '|')"
        return self.pick(
            lambda: Expr("array_length(list)", "nullif(list, 'null'::json).json_array_length()"),
            lambda: Expr("json_array_length(nest.c)", "json_array_length(nest->'$.c')"),
            lambda: Expr(
                "array_to_string(list, '|')",
                f"case when list->>'$' is not null then coalesce({joined}, '') end",
            ),
            lambda: Expr(
                f"list_contains(list, {item})",
                f"len(list_filter({items}, x -> {is_item})) > 0",
            ),
            lambda: Expr(
                f"list_contains(list, '{word}')",
                f"len(list_filter({items}, x -> {is_word})) > 0",
            ),
        )()


def place(path):
    return f"'${path}'" if path.startswith("[") else f"'$.{path}'"


def text_at(name, path):
    return Expr(f"{name}.{path}", f"({name}->>{place(path)})")


def value_at(name, path):
    at = f"{name}->{place(path)}"
    return Expr(f"{name}.{path}", f"case when {name}->>{place(path)} is not null then {at} end")
