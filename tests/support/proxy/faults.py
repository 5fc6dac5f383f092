"""The faults that can happen to a statement: one function per fault makes its reaction."""

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
from .wire_protocol import WireMessage, without_comments

CutPoint: TypeAlias = Literal["before", "after_sent", "after_commit", "mid_answer"]

COMMIT: Final = "COMMIT"
"""The statement, and not the word in ``BEGIN ISOLATION LEVEL READ COMMITTED``."""

_COMMIT: Final = re.compile(r"\s*(commit|end)\b", re.IGNORECASE)

# This is not SQL. It is sent in place of the client's statement, so the server itself fails
# there: it aborts its transaction and skips the rest of the batch, as after a real error. The
# proxy replaces only the server's error message.
_REFUSED: Final = "refused_by_the_proxy"


@dataclass(slots=True)
class Rule:
    """React to the next `left` batches (None: all) that run a statement containing `matching`."""

    matching: str
    left: int | None
    reaction: Reaction
    at_commit: bool = False
    """Wait for the COMMIT of a transaction that ran such a statement, and react to that."""

    def applies(self, batch: Batch, transaction: Sequence[str]) -> bool:
        """Whether this rule matches the batch."""
        if self.at_commit:
            return (
                batch.asks_ready
                and _place(batch, is_commit) is not None
                and any(holds(self.matching)(sql) for sql in transaction)
            )
        return _place(batch, holds(self.matching)) is not None

    @property
    def is_spent(self) -> bool:
        """Whether the rule has reacted as often as it should."""
        return self.left is not None and self.left <= 0

    def spend(self) -> None:
        """Count one reaction."""
        if self.left is not None:
            self.left -= 1


WRITES: Final = "INSERT"
"""A text that every write of the library contains."""

_EXPLAIN: Final = re.compile(r"\s*explain\b", re.IGNORECASE)


def holds(part: str) -> Callable[[str], bool]:
    """Make a function that says whether SQL contains `part`; case and comments are ignored.

    For `WRITES`, an EXPLAIN of a write does not match, because it writes nothing. For
    `COMMIT`, ``COMMITTED`` does not match.
    """
    edge = r"\b" if part.upper() == COMMIT else ""
    wanted = re.compile(edge + re.escape(part) + edge, re.IGNORECASE)

    def matches(sql: str) -> bool:
        code = without_comments(sql)
        is_plan = part == WRITES and _EXPLAIN.match(code)
        return wanted.search(code) is not None and not is_plan

    return matches


def is_commit(sql: str) -> bool:
    """Whether SQL is a COMMIT."""
    return _COMMIT.match(without_comments(sql)) is not None


async def forward(session: ClientSession, batch: Batch) -> None:
    """Cause no fault: send the batch to the server."""
    session.send(batch)


async def stall(session: ClientSession, batch: Batch) -> None:
    """Drop the batch, and leave the connection open."""


def refuse(matching: str, error: WireMessage) -> Reaction:
    """Answer `error`, and keep the server from running the statement."""

    async def react(session: ClientSession, batch: Batch) -> None:
        session.send(_with_failure(batch, holds(matching)), _error_answer(error))

    return react


def refuse_commit(error: WireMessage) -> Reaction:
    """Answer `error` to a COMMIT, and make the server roll back."""

    async def react(session: ClientSession, batch: Batch) -> None:
        # The server gets a statement that fails, then a ROLLBACK. The client sees one failed
        # COMMIT: the error of the first, and the ReadyForQuery of the second.
        refused = _error_answer(error)
        session.send(
            _with_failure(batch, is_commit),
            lambda message: b"" if message.kind == wire.READY else refused(message),
        )
        session.send(
            Batch([wire.query("ROLLBACK")]),
            lambda message: message.raw if message.kind == wire.READY else b"",
        )

    return react


def cut(where: CutPoint, *, reset: bool) -> Reaction:
    """Close the client's connection at the point `where`, with RST if `reset`."""

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
        await session.send(batch, _collector(answer)).over.wait()
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
    """Call `action` in a thread before the batch is handled."""

    async def react(_session: ClientSession, _batch: Batch) -> None:
        await asyncio.to_thread(action)

    return react


class Held:
    """A batch that the proxy holds back, even after its client has disconnected.

    Methods that wait take a timeout in seconds and raise `TimeoutError`.
    """

    def __init__(self) -> None:
        self._arrived: Future[None] = Future()
        self._decision: Future[bool] = Future()
        self._answered: Future[None] = Future()

    def arrived(self, timeout: float = 30.0) -> None:
        """Wait until the client has sent the batch."""
        self._arrived.result(timeout)

    def release(self, timeout: float = 30.0) -> None:
        """Send the batch to the server, and wait until the server has answered.

        Raises `ConnectionError` if the connection to the server is lost first.
        """
        self._decide(forward=True)
        self._answered.result(timeout)

    def drop(self) -> None:
        """Drop the batch, and close the client's connection."""
        self._decide(forward=False)

    def _decide(self, *, forward: bool) -> None:
        with suppress(InvalidStateError):  # already decided, or the connection was lost
            self._decision.set_result(forward)

    async def react(self, session: ClientSession, batch: Batch) -> None:
        """Hold the batch until `release` or `drop`; this is the reaction of the rule."""
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


def _with_failure(batch: Batch, wanted: Callable[[str], bool]) -> Batch:
    """The batch, with the first statement that is `wanted` replaced by one that fails.

    The statements before it in a Query run. For a prepared statement this replaces the Bind,
    not the Parse. So the server
    still prepares it, and the client can use it again.
    """
    messages = list(batch.messages)
    place, refused = next(each for each in batch.statements if wanted(each[1]))
    texts = [sql for at, sql in batch.statements if at == place]
    if messages[place].kind != wire.QUERY:
        messages[place] = wire.parse(_REFUSED)
    elif len(texts) == 1:
        messages[place] = wire.query(_REFUSED)
    else:  # the server reads the whole text before it runs the first statement
        known = texts.index(refused)
        texts[known] = f"SELECT {_REFUSED}"
        messages[place] = wire.query("; ".join(texts))
    return Batch(messages)


def _error_answer(error: WireMessage) -> Answer:
    """An answer that replaces the error of the refused statement by `error`."""

    def answer(message: WireMessage) -> bytes:
        caused = message.kind == wire.EXECUTE_OR_ERROR and _REFUSED.encode() in message.body
        return (error if caused else message).raw

    return answer


def _collector(answer: bytearray) -> Answer:
    def collect(message: WireMessage) -> bytes:
        answer.extend(message.raw)
        return b""

    return collect
