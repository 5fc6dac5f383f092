"""`Writer` and `AsyncWriter` are one writer, for threads and for tasks."""

import inspect
from collections.abc import Callable

import pytest

from dsql_outbox.writer import AsyncWriter, Writer

METHODS = [
    *sorted(name for name in {*dir(AsyncWriter), *dir(Writer)} if not name.startswith("_")),
    "__init__",
]


def parameters(method: Callable[..., object]) -> list[tuple[object, ...]]:
    found = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


@pytest.mark.parametrize("name", METHODS)
def test_both_take_the_same_and_say_the_same(name: str) -> None:
    one, other = getattr(AsyncWriter, name), getattr(Writer, name)
    assert parameters(one) == parameters(other)
    if name != "close":  # tasks may have events that are still to be coalesced
        assert inspect.getdoc(one) == inspect.getdoc(other)
