"""Expressions as Pseidon has them, and what is the same in DuckDB."""

import collections


class Expr(collections.namedtuple("Expr", ["ours", "theirs"])):
    """An expression: as Pseidon has it, and what is the same in DuckDB."""

    @classmethod
    def same(cls, text):
        return cls(text, text)


def form(text, *parts):
    """An expression with `{}` for its parts, the same in both."""
    return forms(text, text, *parts)


def forms(ours, theirs, *parts):
    """An expression that differs: integers are divided by `/` and by `//`, for example."""
    return Expr(
        ours.format(*(part.ours for part in parts)),
        theirs.format(*(part.theirs for part in parts)),
    )
