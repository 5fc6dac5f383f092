"""Walls that import-linter cannot hold, since they follow from docstrings or from a table."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache

from tests.support.checkout import ROOMS, ROOT, files_of

from dsql_outbox.cli.main import _COMMANDS

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
CLAIM = re.compile(r"\b(pure|no I/O|without (any )?I/O)\b", re.IGNORECASE)
WAYS_OUT = {"anyio", "asyncio", "psycopg", "select", "socket", "subprocess", "open", "sleep"}
TELL_ERRORS = {
    "outbox/failure.py",
    "writer/attempt/acts.py",
    "writer/attempt/entity_turn.py",
    "writer/attempt/event_write.py",
    "writer/program/programs.py",
    "writer/transact/call.py",
}
"""They tell errors and the state of a transaction by psycopg's classes, and open nothing."""


@cache
def pure_modules() -> dict[str, ast.Module]:
    """The modules whose docstrings open with a claim to do no I/O."""
    tops = [ROOT / top for top in (*ROOMS, "src/dsql_outbox")]
    found = {}
    for path in files_of(ROOT, "*.py"):
        if any(top in path.parents for top in tops):
            tree = ast.parse(path.read_text())
            opening = (ast.get_docstring(tree) or "").partition("\n\n")[0]
            if CLAIM.search(" ".join(opening.split())):
                found[str(path.relative_to(ROOT))] = tree
    return found


def names_in(tree: ast.Module) -> Iterator[str]:
    """What a module imports, by the names of packages, and all that it uses."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name.partition(".")[0] for each in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Attribute(attr=name) | ast.Name(id=name):
                yield name


def test_a_module_that_says_that_it_is_pure_has_no_way_to_do_io() -> None:
    assert len(pure_modules()) > 15
    ways = {name: {*names_in(tree)} & WAYS_OUT for name, tree in pure_modules().items()}
    assert {name: way for name, way in ways.items() if way - {"psycopg"}} == {}
    assert {name for name, way in ways.items() if way} == TELL_ERRORS


def test_every_command_is_in_the_contract_of_independent_commands() -> None:
    (commands,) = (each["modules"] for each in CONTRACTS if each["type"] == "independence")
    modules = {each.module.partition(".")[0] for each in _COMMANDS.values()}
    assert len(modules) > 5
    assert commands == [f"dsql_outbox.cli.{module}" for module in sorted(modules)]
