"""What the contracts of import-linter in pyproject.toml cannot say of themselves."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

from tests.support.checkout import ROOMS, ROOT, files_of

from dsql_outbox.cli.main import _COMMANDS

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
(PURE,) = (contract["source_modules"] for contract in CONTRACTS if contract.get("id") == "pure")
CLAIM = re.compile(r"\b(pure|no I/O|without (any )?I/O)\b", re.IGNORECASE)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    files = files_of(ROOT, "*.py")
    for top in (*ROOMS, "src/dsql_outbox"):
        base = ROOT / top
        name = ("dsql_outbox", top) if top in ROOMS else ("dsql_outbox",)
        for path in files:
            if base in path.parents:
                parts = path.relative_to(base).with_suffix("").parts
                found[".".join([*name, *parts]).removesuffix(".__init__")] = path
    return found


def claims_to_be_pure(path: Path) -> bool:
    opening = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
    return CLAIM.search(" ".join(opening.split())) is not None


def test_the_contract_names_the_modules_whose_docstrings_say_that_they_are_pure() -> None:
    claimed = sorted(name for name, path in modules().items() if claims_to_be_pure(path))
    assert len(claimed) > 15
    assert claimed == PURE


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return used | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_a_pure_module_does_not_sleep_or_open_files() -> None:
    assert [name for name in PURE if names_in(modules()[name]) & {"sleep", "open"}] == []


def test_every_command_is_in_the_contract_of_independent_commands() -> None:
    (commands,) = (each["modules"] for each in CONTRACTS if each["type"] == "independence")
    modules = {each.module.partition(".")[0] for each in _COMMANDS.values()}
    assert len(modules) > 5
    assert commands == [f"dsql_outbox.cli.{module}" for module in sorted(modules)]
