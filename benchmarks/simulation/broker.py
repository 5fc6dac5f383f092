"""A model of a broker, and the sink that leads to it from one publisher."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.sinks.port import (
    Answer,
    Delivered,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)
from dsql_outbox.schema.outbox_rows import RowId

from .history import Answered, Arrival, History, name_of
from .machines import World
from .watch import Watch
from .wire import Line

if TYPE_CHECKING:
    from . import schedule

LIMIT: Final = 4.0
"""Seconds after which a call of the sink ends."""

_STEP: Final = 0.0005
"""Seconds between two messages of a run, at the broker and in its answers."""

_GATHER: Final = 0.005
"""Seconds in which a client gathers the answers that it hands over at once."""

_TROUBLES: Final = ("lost", "unanswered", "slow", "late", "failed", "cut", "double")
"""What becomes of a run, if the connection is lossy."""


class Illness(NamedTuple):
    """The broker's answer for a row: `Retry` so many times, or `Rejected`."""

    retries: int
    rejected: bool


class Broker:
    """Stores messages; each takes up to `slow` seconds there, and its answer back.

    `away` counts the faults of each topic that last now.
    """

    def __init__(self, world: World, history: History, slow: float) -> None:
        self.slow = slow
        self.world = world
        self.history = history
        self.away: Counter[str] = Counter()
        self.ill: dict[RowId, Illness] = {}
        self.functions: dict[RowId, tuple[schedule.Illness, int]] = {}
        """What the function of a model does wrong with a message, and how often."""
        self.ills: Counter[RowId] = Counter()
        """How often it did so."""
        self.has_map = False
        """Whether the publishers have a map, so that it must get what that makes."""
        self.fates: dict[RowId, tuple[schedule.Fate, int]] = {}
        """What the map does with a message, and how often."""
        self.raised: Counter[RowId] = Counter()
        """How often it raised for a row."""
        self._rows: dict[tuple[str, str], RowId] = {}
        self._retries: Counter[RowId] = Counter()

    def expect(self, row: RowId) -> None:
        """Know the message of a row when it comes."""
        self._rows[row.event_id, str(row.position)] = row

    def row_of(self, message: Message) -> RowId:
        """The row that became this message."""
        return self._rows[str(message.event_id), message.headers["position"]]

    def take(self, message: Message, publisher: str) -> Outcome:
        """Store a message that arrives, or refuse it."""
        row = self.row_of(message)
        if self.away[message.topic]:
            self.history.counts["topic away"] += 1
            return Unavailable(f"topic {message.topic} is away")
        if ill := self.ill.get(row):
            if ill.rejected:
                return Rejected("never")
            if self._retries[row] < ill.retries:
                self._retries[row] += 1
                return Retry("not now")
        self.history.arrivals.append(Arrival(self.world.now, row, publisher))
        return Delivered()


class _Passage(NamedTuple):
    """The way of a run: `stored` of its messages arrive, and `answered` of them have an answer.

    Each answer takes `back` seconds, and `step` seconds are between two messages.
    """

    stored: int
    answered: int
    back: float
    step: float = _STEP


class _Call:
    """A call of `publish` that runs."""

    def __init__(
        self, messages: Sequence[Message], answer: Answer, future: asyncio.Future[None]
    ) -> None:
        self.messages = messages
        self.answer = answer
        self.future = future
        self.pending = set(range(len(messages)))
        self.is_stuck = False

    @property
    def runs(self) -> list[range]:
        """The indexes of each run: messages of one key side by side."""
        keys = [message.key for message in self.messages]
        begins = [n for n, key in enumerate(keys) if not n or keys[n - 1] != key]
        return [range(n, end) for n, end in zip(begins, [*begins[1:], len(keys)], strict=False)]


class ModelSink:
    """The `Sink` of one publisher. Not each takes runs, so others compose them differently."""

    system = "model"

    def __init__(
        self,
        broker: Broker,
        line: Line,
        name: str,
        watch: Watch,
        random: Random,
    ) -> None:
        self._broker = broker
        self._world, self._machine, self._troubles, self._strike = line
        self._name = name
        self._watch = watch
        self._random = random
        chance = random.random()
        self.keeps_prefix = chance < 0.8
        self._gathers = Random(chance).random() < 0.5
        """Whether its client hands several answers over at once, as one with a thread does."""
        self._gathered: list[tuple[_Call, range, int, Outcome]] = []
        self._in_flight: Counter[str] = Counter()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """See `Sink.publish`."""
        loop = self._machine.loop
        call = _Call(messages, answer, loop.create_future())
        hangs = self._begin(call)
        if not messages and not self._troubles["broker away"]:
            loop.call_later(0.002, _end, call)
        timer = None if hangs else loop.call_later(LIMIT, self._give_up, call)
        try:
            if call.is_stuck:
                with anyio.CancelScope(shield=True):
                    await call.future
            await call.future
        finally:
            if timer is not None:
                timer.cancel()
            self._release(call)

    def _release(self, call: _Call) -> None:
        """Let others send the keys of what has no answer."""
        for index in call.pending:
            self._ended(call.messages[index])
        call.pending.clear()

    def _ended(self, message: Message) -> None:
        self._in_flight[message.key] -= 1
        self._watch.ends(self._name, self._broker.row_of(message), message)

    def _begin(self, call: _Call) -> bool:
        """Send the messages. Returns whether the call hangs."""
        self._check(call)
        troubles = self._troubles
        for kind in ("call hangs", "call stuck"):
            if troubles[kind] and call.messages:
                troubles[kind] = 0
                self._strike(kind)
                call.is_stuck = kind == "call stuck"
                if call.is_stuck:  # its messages may be sent again, since it ignores its end
                    self._release(call)
                return True
        if troubles["broker away"]:
            self._strike("broker away")
            self._world.after(0.002, _fail, call)
            return False
        for run in call.runs:
            self._send(call, run)
        return False

    def _check(self, call: _Call) -> None:
        for run in call.runs:
            messages = [call.messages[index] for index in run]
            key = messages[0].key
            if self._in_flight[key]:
                self._fault(f"has two runs of {key} in flight")
            if len(run) > 1 and not self.keeps_prefix:
                self._fault(f"has a run of {key}, and takes none")
            if len(run) > 1 and any("replay" in message.headers for message in messages):
                self._fault(f"has a replay in a run of {key}")
            if len({message.topic for message in messages}) > 1:
                self._fault(f"has a run of {key} for several topics")
            self._broker.history.counts["run"] += len(run) > 1
            self._in_flight[key] += len(run)
            for message in messages:
                row = self._broker.row_of(message)
                self._watch.sends(self._name, row, message)
                if self._broker.has_map and message.payload != wire_payload(row):
                    self._fault(f"sends {name_of(row)} as it is stored")

    def _fault(self, what: str) -> None:
        self._broker.history.faults.append(f"{self._name} {what}")

    def _send(self, call: _Call, run: range) -> None:
        random, slow, length = self._random.random, self._broker.slow, len(run)
        there, back = 0.001 + slow * random() ** 2, 0.001 + slow * random() ** 2
        way = _Passage(length, length, back)
        if self._troubles["broker lossy"] and random() < 0.4:
            kind = self._random.choice(_TROUBLES)
            self._strike(f"{'message' if length == 1 else 'run'} {kind}")
            if kind == "lost":
                return
            if kind == "failed":
                self._world.after(there, _fail, call)
                return
            there = {"slow": LIMIT, "late": 4 * LIMIT}.get(kind, 0.1) * random()
            if kind == "slow":  # also between its messages, so that it may end within the run
                way = way._replace(step=there / length)
            elif kind == "unanswered":
                way = way._replace(back=LIMIT)
            elif kind == "cut":
                stored = self._random.randint(0, length)
                way = way._replace(stored=stored, answered=self._random.randint(0, stored))
            elif kind == "double":  # the client sent it again, and one of them has no answer
                again = way._replace(answered=0)
                self._world.after(there + LIMIT * random(), self._arrive, call, run, 0, again)
        self._world.after(there, self._arrive, call, run, 0, way)

    def _arrive(self, call: _Call, run: range, at: int, way: _Passage) -> None:
        """Have a message of a run stored, and the next one only if it was."""
        if at >= way.stored:
            return
        outcome = self._broker.take(call.messages[run[at]], self._name)
        if at < way.answered:
            self._world.after(way.back, self._tell, call, run, at, outcome)
        if _goes_on(outcome) and at + 1 < len(run):
            self._world.after(way.step, self._arrive, call, run, at + 1, way)

    def _tell(self, *answer: *tuple[_Call, range, int, Outcome]) -> None:
        """Hand an answer over, at once or with those that come soon after it."""
        self._gathered.append(answer)
        if len(self._gathered) == 1:
            told = self._machine.loop.call_soon
            self._world.after(_GATHER if self._gathers else 0.0, told, self._answer_all)

    def _answer_all(self) -> None:
        answers, self._gathered = self._gathered, []
        for each in answers:
            self._answer(*each)

    def _answer(self, call: _Call, run: range, at: int, outcome: Outcome) -> None:
        """Tell the relay, unless the call has ended."""
        index = run[at]
        if index not in call.pending or call.future.done():
            return
        message = call.messages[index]
        for ended in [index] if isinstance(outcome, Delivered) else run[at:]:
            call.pending.discard(ended)
            self._ended(call.messages[ended])
        self._broker.history.answers.append(
            Answered(
                self._world.now,
                self._broker.row_of(message),
                self._name,
                type(outcome).__name__,
            )
        )
        call.answer(index, outcome)
        if not call.pending:
            _end(call)

    def _give_up(self, call: _Call) -> None:
        """At the end of the time: what has no answer was not attempted, or all failed."""
        if self._random.random() < 0.5:
            _fail(call)
        else:
            _end(call)


def wire_payload(row: RowId) -> bytes:
    """What the map of the publishers makes of a row."""
    return f"mapped {row.position}".encode()


def _goes_on(outcome: Outcome) -> bool:
    """Whether the broker looks at the next message of a run."""
    return isinstance(outcome, Delivered)


def _end(call: _Call) -> None:
    if not call.future.done():
        call.future.set_result(None)


def _fail(call: _Call) -> None:
    if not call.future.done():
        call.future.set_exception(SinkUnavailable("the broker is away"))
