"""The way from one publisher to the database: slow, lossy, or cut."""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final, Literal, NamedTuple, TypeVar

import psycopg

from .machines import Machine, World

T = TypeVar("T")

REFUSALS: Final = tuple(
    psycopg.errors.lookup(state) for state in ("25006", "57014", "42501", "0A000", "53200", "54000")
)
"""The errors of "statements refused", each with its SQLSTATE."""

LATEST: Final = 13.0
"""Seconds: a statement that was given up may be applied so much later."""


class Line(NamedTuple):
    """The connection of a machine to the world; `troubles` counts the faults that last now.

    `strike` notes that a fault struck, which it gets the name of.
    """

    world: World
    machine: Machine
    troubles: Counter[str]
    strike: Callable[[str], None]


class Wire:
    """Runs statements.

    `whose` is the first word of the troubles that concern them alone.
    Raises `psycopg.OperationalError` when there is no answer within `limit` seconds or
    the connection is lost, and `SerializationFailure` for a conflict.
    """

    def __init__(self, line: Line, random: Random, whose: Literal["statements", "leases"]) -> None:
        self._whose = whose
        self._world, self._machine, self._troubles, self._strike = line
        self._random = random
        self._session: bool | None = None
        """Whether the session accepts writes; None: the next statement opens one."""

    async def run(self, apply: Callable[[], T], limit: float, cut: str = "") -> T:
        """Run a statement, which `apply` applies to the tables; the trouble `cut` cuts it."""
        loop = self._machine.loop
        answer: asyncio.Future[T] = loop.create_future()
        self._send(apply, answer, limit, cut)
        timer = loop.call_later(limit, _give_up, answer, limit)
        try:
            return await answer
        except psycopg.errors.SerializationFailure:
            raise
        except psycopg.Error:
            self._session = None  # as the tables do: any other error ends the session
            raise
        finally:
            timer.cancel()

    def _send(
        self, apply: Callable[[], T], answer: asyncio.Future[T], limit: float, cut: str
    ) -> None:
        random, troubles = self._random.random, self._troubles
        there, back = 0.001 + 0.003 * random(), 0.001 + 0.003 * random()
        if not self._machine.is_alive or self._machine.loop.is_closing:
            _fail(answer, psycopg.OperationalError("the machine is off"))
        elif troubles[f"{self._whose} silent"]:
            self._strike(f"{self._whose} silent")
        elif troubles[f"{self._whose} slow"]:
            self._strike(f"{self._whose} slow")
            self._world.after(there, self._arrive, apply, answer, limit * (0.5 + 0.45 * random()))
        elif troubles[cut]:
            self._strike(cut)
            lost = psycopg.OperationalError("the connection is lost")
            self._world.after(there, _fail, answer, lost)
        elif troubles["database away"]:
            self._strike("database away")
            self._world.after(there, _fail, answer, psycopg.OperationalError("refused"))
        elif (refusal := self._refusal()) is not None:
            self._world.after(there, _fail, answer, refusal)
        elif troubles["statements lossy"] and random() < 0.5:
            self._harm(apply, answer, limit)
        else:
            self._world.after(there, self._arrive, apply, answer, back)

    def _refusal(self) -> psycopg.Error | None:
        """The error of a server that accepts no writes, or of one that refuses statements.

        A session that began on a server without writes stays there, also after the end of
        the trouble: a former primary goes on as it is.
        """
        troubles = self._troubles
        if troubles["database read-only"] and self._session:
            self._strike("failover")
            return psycopg.OperationalError("the connection is lost")
        if self._session is None:
            self._session = not troubles["database read-only"]
        if not self._session:
            self._strike("statement without writes")
            return psycopg.errors.ReadOnlySqlTransaction("the server accepts no writes")
        if troubles["statements refused"] and self._random.random() < 0.5:
            refusal = self._random.choice(REFUSALS)("refused")
            self._strike(f"statement {refusal.sqlstate}")
            return refusal
        return None

    def _harm(self, apply: Callable[[], T], answer: asyncio.Future[T], limit: float) -> None:
        after, random = self._world.after, self._random
        kind = random.choice(("slow", "lost", "cut", "unanswered", "cut after", "late", "conflict"))
        self._strike(f"statement {kind}")
        soon, slow = 0.002 + 0.1 * random.random(), limit * random.random() ** 3
        cut = psycopg.OperationalError("the connection is lost")
        if kind == "slow":
            after(slow, self._arrive, apply, answer, slow)
        elif kind == "cut":
            after(soon, _fail, answer, cut)
        elif kind == "unanswered":
            after(slow, apply)
        elif kind == "cut after":
            after(soon, apply)
            after(2 * soon, _fail, answer, cut)
        elif kind == "late":
            after(limit + LATEST * random.random(), apply)
        elif kind == "conflict":
            conflict = psycopg.errors.SerializationFailure("change conflicts (OC000)")
            after(soon, _fail, answer, conflict)

    def _arrive(self, apply: Callable[[], T], answer: asyncio.Future[T], back: float) -> None:
        self._world.after(back, _tell, answer, apply())


def _give_up(answer: asyncio.Future[Any], limit: float) -> None:
    _fail(answer, psycopg.OperationalError(f"no answer within {limit:g} s"))


def _tell(answer: asyncio.Future[Any], result: object) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
