"""What can go wrong with a statement, one function each."""

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from . import wire_protocol as wire
from .client_session import Answer, Batch, ClientSession, Reaction, swallow
from .tcp_proxy import Cut
from .wire_protocol import WireMessage

CutPoint: TypeAlias = Literal["before", "after_sent", "after_commit", "mid_answer"]

_COMMIT: Final = re.compile(r"\s*(commit|end)\b", re.IGNORECASE)

# No statement at all: the server refuses it where the client's statement would have run. So
# it brings its transaction into the state that a failure brings, and skips what follows, by
# itself; only the text of its error is exchanged.
_REFUSED: Final = "refused_by_the_proxy"


@dataclass(slots=True)
class Rule:
    """React to the next `left` batches (None: all) that run a statement holding `matching`."""

    matching: str
    left: int | None
    reaction: Reaction
    at_commit: bool = False
    """React to the COMMIT of a transaction that ran such a statement instead."""

    def applies(self, batch: Batch, transaction: Sequence[str]) -> bool:
        """Whether it is this rule's turn."""
        if self.at_commit:
            return (
                batch.asks_ready
                and _place(batch, is_commit) is not None
                and any(holds(self.matching)(sql) for sql in transaction)
            )
        return _place(batch, holds(self.matching)) is not None

    @property
    def is_spent(self) -> bool:
        """Whether there is no turn left."""
        return self.left is not None and self.left <= 0

    def spend(self) -> None:
        """Count one turn."""
        if self.left is not None:
            self.left -= 1


WRITES: Final = "INSERT"
"""What a write of the library holds."""

_EXPLAIN: Final = re.compile(r"\s*explain\b", re.IGNORECASE)


def holds(part: str) -> Callable[[str], bool]:
    """Whether SQL holds `part`, in upper or lower case; a write that is explained is none."""
    writes = part == WRITES
    return lambda sql: part.lower() in sql.lower() and not (writes and _EXPLAIN.match(sql))


def is_commit(sql: str) -> bool:
    """Whether SQL is a COMMIT."""
    return _COMMIT.match(sql) is not None


async def forward(session: ClientSession, batch: Batch) -> None:
    """Nothing goes wrong."""
    session.send(batch)


async def stall(session: ClientSession, batch: Batch) -> None:
    """The statement gets lost and nobody notices."""


def refuse(matching: str, error: WireMessage) -> Reaction:
    """The server answers `error` instead of running the statement."""

    async def react(session: ClientSession, batch: Batch) -> None:
        session.send(_refused(batch, holds(matching)), _exchanging(error))

    return react


def refuse_commit(error: WireMessage) -> Reaction:
    """The server answers `error` instead of committing, and has rolled back."""

    async def react(session: ClientSession, batch: Batch) -> None:
        # The server sees a failed statement, then a ROLLBACK; the client a failed COMMIT.
        refused = _exchanging(error)
        session.send(
            _refused(batch, is_commit),
            lambda message: b"" if message.kind == wire.READY else refused(message),
        )
        session.send(
            Batch([wire.query("ROLLBACK")]),
            lambda message: message.raw if message.kind == wire.READY else b"",
        )

    return react


def cut(where: CutPoint, *, reset: bool) -> Reaction:
    """The client's connection ends at the point `where`, with RST if `reset`."""

    async def before(_session: ClientSession, _batch: Batch) -> None:
        raise Cut(reset=reset)

    async def after_sent(session: ClientSession, batch: Batch) -> None:
        session.send(batch, swallow)
        raise Cut(reset=reset)

    async def after_commit(session: ClientSession, batch: Batch) -> None:
        await session.send(batch, swallow).over.wait()
        raise Cut(reset=reset)

    async def mid_answer(session: ClientSession, batch: Batch) -> None:
        answer = bytearray()
        await session.send(batch, _collecting(answer)).over.wait()
        session.to_client(bytes(answer[: len(answer) // 2]))
        raise Cut(reset=reset)

    points: dict[CutPoint, Reaction] = {
        "before": before,
        "after_sent": after_sent,
        "after_commit": after_commit,
        "mid_answer": mid_answer,
    }
    return points[where]


def before(action: Callable[[], None]) -> Reaction:
    """Something else happens first."""

    async def react(_session: ClientSession, _batch: Batch) -> None:
        await asyncio.to_thread(action)

    return react


class Held:
    """A statement that the proxy keeps to itself, even when its client has gone.

    Methods that wait have a timeout in seconds and raise `TimeoutError`.
    """

    def __init__(self) -> None:
        self._arrived: Future[None] = Future()
        self._decision: Future[bool] = Future()
        self._answered: Future[None] = Future()

    def arrived(self, timeout: float = 5.0) -> None:
        """Wait until the statement is here."""
        self._arrived.result(timeout)

    def release(self, timeout: float = 10.0) -> None:
        """Let the server have it, and wait until it answered.

        Raises `ConnectionError` when the connection to the server is lost instead.
        """
        self._decide(forward=True)
        self._answered.result(timeout)

    def drop(self) -> None:
        """Never let the server have it, and close the client's connection."""
        self._decide(forward=False)

    def _decide(self, *, forward: bool) -> None:
        with suppress(InvalidStateError):  # decided before, or the connection is lost
            self._decision.set_result(forward)

    async def react(self, session: ClientSession, batch: Batch) -> None:
        """Hold the batch until it is decided upon; the reaction of the rule."""
        self._arrived.set_result(None)
        try:
            if not await asyncio.wrap_future(self._decision):
                raise Cut
            await session.send(batch).over.wait()
        except asyncio.CancelledError:
            self._answered.set_exception(ConnectionError("the server's connection was lost"))
            raise
        self._answered.set_result(None)


def _place(batch: Batch, wanted: Callable[[str], bool]) -> int | None:
    return next((place for place, sql in batch.statements if wanted(sql)), None)


def _refused(batch: Batch, wanted: Callable[[str], bool]) -> Batch:
    """The batch with the statement in question made unacceptable.

    The Bind is replaced, not the Parse: so the statement is prepared on both
    sides, and a client that prepared it can go on using it.
    """
    messages = list(batch.messages)
    place = _place(batch, wanted)
    assert place is not None  # noqa: S101 - the rule applied
    make = wire.query if messages[place].kind == wire.QUERY else wire.parse
    messages[place] = make(_REFUSED)
    return Batch(messages)


def _exchanging(error: WireMessage) -> Answer:
    """Passes all on, but `error` in place of the error that a refused statement causes."""

    def answer(message: WireMessage) -> bytes:
        caused = message.kind == wire.EXECUTE_OR_ERROR and _REFUSED.encode() in message.body
        return (error if caused else message).raw

    return answer


def _collecting(answer: bytearray) -> Answer:
    def collect(message: WireMessage) -> bytes:
        answer.extend(message.raw)
        return b""

    return collect
