"""tests/promises.md: every promise names tests, and these tests exist."""

import ast
import re
from functools import cache

from tests.support.checkout import ROOT

PAGE = (ROOT / "tests" / "promises.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def defined(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


def test_the_tests_that_hold_promises_exist() -> None:
    assert [f"{path}::{name}" for path, name in NAMED if name not in defined(path)] == []


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row not in {"| promise | held by |", "| --- | --- |"}]
    assert len(rows) > 20
    assert [row for row in rows if "::test_" not in row] == []


def test_every_command_is_a_target() -> None:
    page = (ROOT / "docs" / "how-it-is-tested.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([\w-]+)", page))
    assert targets >= {"nemesis", "simulate", "faults-writer"}
    assert [name for name in targets if not re.search(rf"^{name}: ", makefile, re.MULTILINE)] == []
