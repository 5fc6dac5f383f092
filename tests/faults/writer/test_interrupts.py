"""Calls that are interrupted at any point leave nothing taken: the next call works."""

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from psycopg.pq import PGconn
from tests.support.checkout import ROOT

from dsql_outbox.outbox.database.connection import Connection

pytestmark = pytest.mark.client

LIMIT = 550
"""Seconds after which a program of interrupted calls is ended."""


def after(way: str, url: str, *modules: str) -> dict[str, Any]:
    """What a program of interrupted calls tells at its end."""
    program = [sys.executable, "-m", "tests.support.writer.interrupted_calls"]
    run = subprocess.run(
        [*program, way, url, *modules], cwd=ROOT, capture_output=True, check=True, timeout=LIMIT
    )
    told: dict[str, Any] = json.loads(run.stdout)
    return told


@pytest.mark.parametrize(
    "modules",
    [("turns", "call", "programs"), pytest.param((), marks=pytest.mark.slow)],
    ids=["what holds turns", "all modules"],
)
def test_after_an_interrupt_at_any_point_the_next_call_has_its_turn(
    url: str, modules: tuple[str, ...]
) -> None:
    told = after("points", url, *modules)
    assert told["points"] > 50
    assert told["failed"] == []


@pytest.mark.parametrize(
    "modules",
    [("lent_sessions", "loops"), pytest.param((), marks=pytest.mark.slow)],
    ids=["what lends it", "all modules"],
)
def test_an_interrupt_at_any_point_of_a_call_loses_no_connection_of_the_callers_pool(
    url: str, modules: tuple[str, ...]
) -> None:
    told = after("pool", url, *modules)
    assert told["points"] > 20
    assert told["lost"] == []


@pytest.mark.parametrize(
    "modules",
    [("loops",), pytest.param((), marks=pytest.mark.slow)],
    ids=["what performs it", "all modules"],
)
def test_an_interrupt_at_any_point_of_a_call_leaves_no_transaction_of_the_caller_open(
    url: str, modules: tuple[str, ...]
) -> None:
    told = after("engine", url, *modules)
    assert told["points"] > 10
    assert told["left"] == []


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        ("connection", ("writer", "call", "function_run", "joinable", "programs")),
        ("engine", ("writer", "call", "function_run", "transaction", "programs")),
        (
            "connection -1",
            ("writer", "call", "function_run", "joinable", "programs", "caller_session"),
        ),
        *[
            pytest.param(kind, (), marks=pytest.mark.slow)
            for kind in ("connection", "session", "transact", "pool", "engine", "session -1")
        ],
    ],
)
def test_an_interrupt_at_any_point_of_an_append_tears_no_row_from_its_event(
    url: str, kind: str, modules: tuple[str, ...]
) -> None:
    """The caller swallows the interrupt, or the refusal of a version of -1, and commits."""
    told = after("appends", url, kind, *modules)
    assert told["points"] > 5
    assert told["torn"] == 0
    assert told["stored"] < told["points"] / 2, "an append that was interrupted is stored"


def test_an_interrupt_at_any_point_of_a_refused_remember_stores_no_effect(url: str) -> None:
    told = after("remembers", url)
    assert told["points"] > 10
    assert told["stored"] == 0


@pytest.mark.slow
def test_after_signals_at_random_moments_each_next_call_has_its_turn(url: str) -> None:
    told = after("signals", url)
    assert told["interrupted"] > 50
    assert told["failed"] == []


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="it needs one processor")
def test_an_exception_set_for_a_thread_makes_no_call_wait_for_ever(url: str) -> None:
    """As the time limits of Dramatiq and stopit do it."""
    assert after("threads", url) == {"hang": 0}


def test_a_connection_that_an_interrupt_keeps_from_being_built_tells_whether_it_is_closed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python asks it at its end, and would print an error that nobody can catch."""
    built: list[psycopg.BaseConnection[Any]] = []

    def interrupted(self: psycopg.BaseConnection[Any], pgconn: PGconn) -> None:
        self.pgconn = pgconn
        built.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(psycopg.BaseConnection, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Connection(PGconn.connect(url.encode()))
    assert not built[0].closed
    built[0].pgconn.finish()
    assert built[0].closed
