"""SQL without its comments: pure."""

import re
from functools import lru_cache
from typing import Final

# Texts come first, because a text may contain what looks like a comment.
_PART: Final = re.compile(
    r"""
    [eE]'(?:[^'\\]|\\.|'')*'   # E'it\'s'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    | (?P<line>--[^\n]*)
    | (?P<block>/\*)
    """,
    re.VERBOSE | re.DOTALL,
)
_EDGE: Final = re.compile(r"/\*|\*/")


@lru_cache(maxsize=512)  # a client runs the same statements again and again
def without_comments(sql: str) -> str:
    """Return SQL with a blank in place of each comment."""
    kept: list[str] = []
    start = 0
    while (part := _PART.search(sql, start)) is not None:
        end = _end_of_block(sql, part.end()) if part["block"] else part.end()
        is_comment = part["block"] or part["line"]
        kept += [sql[start : part.start()], " " if is_comment else part[0]]
        start = end
    return "".join([*kept, sql[start:]])


def _end_of_block(sql: str, start: int) -> int:
    """Return where a comment ends that began before `start`. Comments may be nested."""
    depth = 1
    while depth and (edge := _EDGE.search(sql, start)) is not None:
        depth += 1 if edge[0] == "/*" else -1
        start = edge.end()
    return len(sql) if depth else start
