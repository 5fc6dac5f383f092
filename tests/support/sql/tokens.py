"""SQL as tokens: what a statement says, without its comments and its layout.

A small reader rather than a parser. PostgreSQL's own grammar (pglast) knows no
``CREATE INDEX ASYNC`` and is licensed by the GPL; sqlglot takes more than PostgreSQL does.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
    |(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|(?:[bBnNxX]|[uU]&)?'(?:[^']|'')*'
      |\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    |(?P<quoted>(?:[uU]&)?"(?:[^"]|"")+")
    |(?P<param>\$\d+)
    |(?P<word>[^\W\d][\w$]*)
    |(?P<number>\.?\d(?:[eE][+-]?\d|[\w.])*)
    |(?P<sign>::|[(),;.:\[\]]|(?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?])+)""",
    re.VERBOSE | re.DOTALL,
)
_EDGE: Final = re.compile(r"/\*|\*/")
_PLAIN: Final = re.compile(r'"[a-z_][a-z0-9_]*"')


class Token(NamedTuple):
    """`kind` is word, quoted, string, number, param or sign; a word is in small letters."""

    kind: str
    text: str


def tokens(sql: str) -> list[Token]:
    """All tokens but comments and white space; raises `ValueError` for what is no SQL."""
    return list(_tokens(sql))


def statements(sql: str) -> list[list[Token]]:
    """The tokens of each statement of a text, without the semicolons."""
    found: list[list[Token]] = [[]]
    for token in _tokens(sql):
        if token == ("sign", ";"):
            found.append([])
        else:
            found[-1].append(token)
    return [each for each in found if each]


def canonical(sql: str) -> str:
    """The same text for all that differ in comments, white space or the case of words only."""
    return " ".join(token.text for token in _tokens(sql))


def outline(statement: list[Token]) -> str:
    """What rules read: each token between two spaces; no text of a string or an odd name."""
    return f" {' '.join(map(_shown, statement))} "


def _shown(token: Token) -> str:
    if token.kind == "string":
        return "''"
    if token.kind == "quoted" and not _PLAIN.fullmatch(token.text):
        return '"?"'
    return token.text


def _tokens(sql: str) -> Iterator[Token]:
    at = 0
    while at < len(sql):
        if sql.startswith("/*", at):
            at = _after_comment(sql, at)
            continue
        found = _TOKEN.match(sql, at)
        if found is None:
            raise ValueError(f"cannot read SQL at character {at}")
        at = found.end()
        if (kind := found.lastgroup) != "space":
            assert kind is not None
            yield Token(kind, found[0].lower() if kind == "word" else found[0])


def _after_comment(sql: str, at: int) -> int:
    depth = 0
    for found in _EDGE.finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    raise ValueError(f"cannot read SQL at character {at}: a comment without an end")
