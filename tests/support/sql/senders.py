"""Which part sends a statement, read from the code: who names it, sends it."""

import ast
from collections.abc import Iterator
from functools import cache
from typing import Final

from tests.support.checkout import ROOT

_SENDERS: Final = {
    "writer/": "writer",
    "src/dsql_outbox/operations/records.py": "console",
    "src/dsql_outbox/operations/": "operator",
    "publisher/": "publisher",
    "schema/": "schema",
    "src/dsql_outbox/cli/doctor/": "doctor",
    "src/dsql_outbox/cli/demo/": "demo",
    "src/dsql_outbox/cli/publish.py": "publisher",
    "src/dsql_outbox/cli/relay/": "publisher",
    "src/dsql_outbox/cli/": "operator",
    "src/dsql_outbox/inbox/": "consumer",
    "outbox/": "outbox",
}
"""By path; the first that fits. Operator: the commands of the command line."""

_SENDS: Final = {
    "transaction": ("BEGIN", "COMMIT", "ROLLBACK"),
    "commit": ("COMMIT",),
    "rollback": ("ROLLBACK",),
}
"""What psycopg sends for a method of a connection."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    """The library's modules, each with its part; the helpers for users' tests left out."""
    for folder in (
        *("writer", "publisher", "schema", "outbox"),
        *("src/dsql_outbox/cli", "src/dsql_outbox/operations", "src/dsql_outbox/inbox"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            sender = next(sender for start, sender in _SENDERS.items() if name.startswith(start))
            yield sender, ast.parse(path.read_text())


def senders(name: str) -> tuple[str, ...]:
    """Who names this statement, or sends this word; sorted."""
    found = _named().items()
    return tuple(
        sorted(
            sender for sender, (named, starts) in found if name in named or name.startswith(starts)
        )
    )


@cache
def _named() -> dict[str, tuple[set[str], tuple[str, ...]]]:
    """What each sender names, and the starts of names that it completes."""
    found: dict[str, set[str]] = {}
    for sender, module in sources():
        found.setdefault(sender, set()).update(_words(module))
    return {
        sender: (words, tuple(each.removesuffix("*") for each in words if each.endswith("_*")))
        for sender, words in found.items()
    }


def _words(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        match node:
            case ast.Constant(value=str() as text):
                yield text
            case ast.Constant(value=bytes() as text):
                yield text.decode()
            case ast.JoinedStr(values=[ast.Constant(value=str() as start), *_]):
                yield f"{start}*"  # such as f"plain_{name}"
            case ast.Call(func=ast.Attribute(attr=attr), args=[]):
                yield from _SENDS.get(attr, ())
            case _:
                pass
