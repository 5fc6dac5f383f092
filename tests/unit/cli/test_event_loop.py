"""`publish` runs on uvloop where it is installed, and does not need it."""

import asyncio
import sys

import pytest

from dsql_outbox.cli import event_loop


async def loop_of(_: int) -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_is_used_where_it_is_installed() -> None:
    pytest.importorskip("uvloop")
    assert event_loop.run(loop_of, 1) == "uvloop"


def test_without_it_the_loop_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop.run(loop_of, 1).startswith("asyncio.")
