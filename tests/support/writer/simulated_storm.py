"""A storm in virtual time: what the waits of a writer alone store, whatever else the machine does.

An attempt takes a set time, and fails if another one was committed since it began, as on Aurora
DSQL. The waits are those of the library.
"""

import heapq
from itertools import count
from random import Random
from typing import Final, NamedTuple

import psycopg

from dsql_outbox import WriterSettings
from dsql_outbox.outbox.failure import DatabaseFailure, FailureKind
from dsql_outbox.outbox.unit_of_work.budget import Spending
from dsql_outbox.writer.budgets import budgets_of

_CONFLICT: Final = DatabaseFailure(
    FailureKind.CONFLICT, psycopg.errors.SerializationFailure(), "40001", None
)
_PAUSE: Final = 0.003
"""Seconds between two calls of a writer."""

_SPREAD: Final = 0.15
"""The share by which attempts differ in their length."""


class Simulated(NamedTuple):
    """The result: events, those stored, conflicts, and the seconds of the longest call."""

    calls: int
    stored: int
    conflicts: int
    longest: float


class _Call:
    """A call of a writer that has `left` more; its attempt began at `attempt`."""

    def __init__(self, settings: WriterSettings, random: Random, began: float, left: int) -> None:
        deadline = None if settings.timeout is None else began + settings.timeout
        self.spending = Spending(budgets_of(settings), deadline, random.random)
        self.began = self.attempt = began
        self.left = left


def simulated_storm(
    settings: WriterSettings, writers: int, writes: int, attempt: float, seed: int
) -> Simulated:
    """Let writers write events of one entity, one after the other; an attempt takes `attempt` s."""
    random, order = Random(seed), count()
    stored, conflicts, longest, committed = 0, 0, 0.0, -1.0
    ends: list[tuple[float, int, _Call]] = []

    def begin(call: _Call, now: float) -> None:
        call.attempt = now
        lasts = attempt * random.uniform(1 - _SPREAD / 2, 1 + _SPREAD / 2)
        heapq.heappush(ends, (now + lasts, next(order), call))

    for _ in range(writers):
        begun = random.random() * 0.01
        begin(_Call(settings, random, begun, writes - 1), begun)
    while ends:
        now, _, call = heapq.heappop(ends)
        is_lost = committed > call.attempt
        if is_lost:
            conflicts += 1
            wait = call.spending.next_wait(_CONFLICT, now)
            if wait is not None:
                begin(call, now + wait)
                continue
        else:
            committed, stored = now, stored + 1
        longest = max(longest, now - call.began)
        if call.left:
            begin(_Call(settings, random, now + _PAUSE, call.left - 1), now + _PAUSE)
    return Simulated(writers * writes, stored, conflicts, longest)
