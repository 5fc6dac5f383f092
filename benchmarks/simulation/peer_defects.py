"""Defects that users of other relays reported, to plant in ours at its ports.

They fit a relay on models as well as a publisher on a real database and a real broker:
`with PEER_DEFECTS[name]():` around either. Each says how the other relays come to it.
"""

# ruff: noqa: ARG001, SLF001 - a defect is planted inside

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import inf
from typing import Any, Final
from unittest.mock import patch

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.leases.ownership import Ownership
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import HEAD, PassedOver, Range, RangeRead, Reading, RowPlace
from dsql_outbox.publisher.sinks.port import Answer, Delivered, Outcome, Retry
from dsql_outbox.schema.outbox_rows import RowId

from .named_defects import defects_of
from .outbox_model import id_of


class _Around:
    """A part of the relay with one method of its own."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


class _OneMark(_Around):
    """A store that reads on from the last row that it saw."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._marks: dict[int, RowPlace] = {}
        self._seen = set[RowId]()

    async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        reading = await self._part.read(ranges, passed)
        moves = not passed.subjects and not passed.topics
        marks = self._marks.copy()
        kept = [
            self._read(of, found, marks, moves=moves)
            for of, found in zip(ranges, reading.ranges, strict=True)
        ]
        return reading._replace(ranges=kept)  # type: ignore[no-any-return]

    def _read(
        self, of: Range, found: RangeRead, marks: dict[int, RowPlace], *, moves: bool
    ) -> RangeRead:
        """Leave out what is new behind the mark, which moves to the end of what it was read."""
        mark = marks.get(of.shard, HEAD)
        rows = [
            row
            for row in found.rows
            if id_of(row) in self._seen or RowPlace(*id_of(row)[1:]) > mark
        ]
        self._seen.update(map(id_of, rows))
        if moves and of.after <= mark:
            self._marks[of.shard] = max(found.end, self._marks.get(of.shard, HEAD))
        return found._replace(rows=rows)


class _EarlyAnswers(_Around):
    """A sink that answers before it sends."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for index in range(len(messages)):
            answer(index, Delivered())
        await self._part.publish(messages, _unheard)


def _unheard(_index: int, _outcome: Outcome) -> None:
    """Nobody waits for the answer."""


class _WholeBatches(_Around):
    """A sink of runs that goes on behind a refused message, with the rest of its run."""

    keeps_prefix = True

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        outcomes: dict[int, Outcome] = {}
        refused = set[str]()
        left = {key: deque(indexes) for key, indexes in _by_key(messages).items()}
        if not messages:
            await self._part.publish(messages, answer)
        while sent := [indexes.popleft() for indexes in left.values() if indexes]:

            def note(number: int, outcome: Outcome, sent: Sequence[int] = sent) -> None:
                index = sent[number]
                outcomes[index] = outcome
                if messages[index].key not in refused:
                    answer(index, outcome)
                if not isinstance(outcome, Delivered):
                    refused.add(messages[index].key)

            await self._part.publish([messages[index] for index in sent], note)
            for index in sent:
                if not isinstance(outcomes.get(index), Delivered | Retry):
                    left[messages[index].key].clear()  # that was no refusal


def _by_key(messages: Sequence[Message]) -> Mapping[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, message in enumerate(messages):
        found.setdefault(message.key, []).append(index)
    return found


@contextmanager
def _planted(
    store: Callable[[Any], Any] = lambda store: store,
    sink: Callable[[Any], Any] = lambda sink: sink,
) -> Generator[None]:
    right = Relay.__init__

    def make(relay: Relay, a_store: Any, a_sink: Any, *others: Any, **named: Any) -> None:
        right(relay, store(a_store), sink(a_sink), *others, **named)

    with patch.object(Relay, "__init__", make):
        yield


def skip_a_late_commit() -> AbstractContextManager[Any]:
    """Rows are read on from the last one seen, so a transaction that commits late is skipped."""
    return _planted(store=_OneMark)


def delete_before_the_confirm() -> AbstractContextManager[Any]:
    """A row is deleted when its message was handed to the client, not when the broker has it."""
    return _planted(sink=_EarlyAnswers)


def send_behind_a_refusal() -> AbstractContextManager[Any]:
    """The rest of a batch is sent though the broker refused a message before it."""
    return _planted(sink=_WholeBatches)


@contextmanager
def send_without_a_fence() -> Generator[None]:
    """An owner of a shard goes on after its lease, until the database tells it of another one."""

    def is_open(own: Ownership, held: Any, now: float) -> bool:
        return not held.draining and not own.is_stopping

    def has_lease(own: Ownership, shard: int, epoch: int, now: float) -> bool:
        return shard in own._held

    def deadline(own: Ownership, shard: int, epoch: int) -> float:
        return inf

    with ExitStack() as stack:
        for name, instead in (
            ("_is_open", is_open),
            ("has_lease", has_lease),
            ("deadline", deadline),
        ):
            stack.enter_context(patch.object(Ownership, name, instead))
        yield


PEER_DEFECTS: Final = defects_of(__name__)
"""Each defect by its name."""
