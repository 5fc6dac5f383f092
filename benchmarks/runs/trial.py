"""Subjects send runs through a sink while its broker is harmed; then what is stored is checked."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import monotonic
from typing import ClassVar, Final, NamedTuple

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.sinks import MAX_RUN, MAX_RUN_BYTES, Delivered, Outcome, Rejected, Sink
from dsql_outbox.testing.sink_contract import new_message

_SUBJECTS: Final = 3
_RUN: Final = MAX_RUN
_BYTES: Final = MAX_RUN_BYTES
_PAUSE: Final = 0.1  # seconds between two runs of a subject, at most
_PATIENCE: Final = 90.0  # seconds until every subject sends again after a harm

Harm = Callable[[Random], AbstractContextManager[None]]
"""A fault of the broker, from entering to leaving it, which may both take seconds."""


class Copy(NamedTuple):
    """A stored message: the run that sent it, its subject, and its number there."""

    run: str
    key: str
    number: int


@dataclass
class Findings:
    """The runs of a trial, and how what is stored of them breaks the promise."""

    runs: int = 0
    cut: int = 0
    """Runs of which some messages are stored and not all."""
    broken: int = 0
    """Runs whose stored messages are not the first ones, in order."""
    beyond: int = 0
    """Stored messages behind one that is missing."""
    disordered: int = 0
    """First deliveries of a subject that came before those of earlier messages."""
    lost: int = 0
    """Messages that were answered as delivered, and are not stored."""
    misanswered: int = 0
    """Messages that were answered as delivered behind one that was not."""
    duplicates: int = 0
    messages: int = 0

    TITLES: ClassVar = "  runs   cut broken beyond disordered  lost misanswered  again messages"

    def __str__(self) -> str:
        return (
            f"{self.runs:>6} {self.cut:>5} {self.broken:>6} {self.beyond:>6} {self.disordered:>10} "
            f"{self.lost:>5} {self.misanswered:>11} {self.duplicates:>6} {self.messages:>8}"
        )

    @property
    def holds(self) -> bool:
        """Whether every run kept its prefix, and every answer was true."""
        return not (self.broken + self.disordered + self.lost + self.misanswered)


@dataclass
class Subject:
    """A subject: its next number, what was rejected, and the runs that were sent."""

    key: str
    next: int = 0
    rejected: set[int] = field(default_factory=set[int])
    runs: dict[str, range] = field(default_factory=dict[str, range])
    misanswered: int = 0


class Shape(NamedTuple):
    """What the messages of a trial are like; one in `big_of` has `big` bytes."""

    topic: str
    most: int = 16_000
    big: int = 0
    big_of: int = 40


class Trial:
    """Subjects that send runs, one run of a subject at a time."""

    def __init__(self, sink: Sink, shape: Shape, random: Random) -> None:
        self._sink = sink
        self._shape = shape
        self._random = random
        self.subjects = [Subject(f"Car/{n}") for n in range(_SUBJECTS)]
        self._ids = count()
        self._stop = False
        self._settled = dict.fromkeys([subject.key for subject in self.subjects], 0)
        self._firsts: dict[tuple[str, int], Message] = {}
        """Each message as it was sent first; its id stays the same."""

    async def run(self, harm: Harm, times: int) -> None:
        """Harm the broker so many times while the subjects send."""
        async with asyncio.TaskGroup() as group:
            for subject in self.subjects:
                group.create_task(self._send(subject))
            try:
                await self._all_go_on()
                for _ in range(times):
                    await asyncio.sleep(self._random.random())
                    block = harm(self._random)
                    await asyncio.to_thread(block.__enter__)
                    await asyncio.to_thread(block.__exit__, None, None, None)
                    await self._all_go_on()
            finally:
                self._stop = True

    async def _all_go_on(self) -> None:
        """Wait until each subject had a message delivered or rejected from now on."""
        before, deadline = dict(self._settled), monotonic() + _PATIENCE
        while any(self._settled[key] == number for key, number in before.items()):
            if monotonic() > deadline:
                raise TimeoutError(f"a subject is stuck: {before} {self._settled}")
            await asyncio.sleep(0.02)

    async def _send(self, subject: Subject) -> None:
        at_most = _RUN
        while not self._stop:
            messages = self._run(subject, at_most)
            outcomes: dict[int, Outcome] = {}
            try:
                await self._sink.publish(messages, outcomes.__setitem__)
            except SinkUnavailable:
                await asyncio.sleep(0.1)
            at_most = self._settle(subject, len(messages), outcomes)
            await asyncio.sleep(self._random.random() * _PAUSE)

    def _settle(self, subject: Subject, size: int, outcomes: dict[int, Outcome]) -> int:
        """Go behind what is delivered; returns how long the next run may be."""
        first = subject.next
        while outcomes.get(subject.next - first) == Delivered():
            subject.next += 1
        done = subject.next - first
        subject.misanswered += sum(
            outcome == Delivered() for index, outcome in outcomes.items() if index > done
        )
        if isinstance(outcomes.get(done), Rejected):
            subject.rejected.add(subject.next)
            subject.next += 1
        self._settled[subject.key] += subject.next - first
        return _RUN if done == size or subject.next > first + done else 1

    def _run(self, subject: Subject, at_most: int) -> Sequence[Message]:
        random, size = self._random, 0
        length = random.randint(1, at_most)
        most = random.choice([200, 1_000, self._shape.most])
        name, messages = f"run{next(self._ids)}", list[Message]()
        for number in range(subject.next, subject.next + length):
            payload = self._payload(subject.key, number, random.randint(2, most))
            size += len(payload)
            if messages and size > _BYTES:
                break
            messages.append(self._message(subject.key, number, payload, name))
        subject.runs[name] = range(subject.next, subject.next + len(messages))
        return messages

    def _payload(self, key: str, number: int, size: int) -> bytes:
        is_big = self._shape.big and Random(f"{key} {number}").randrange(self._shape.big_of) == 0
        return b'"' + b"x" * (self._shape.big if is_big else size) + b'"'

    def _message(self, key: str, number: int, payload: bytes, run: str) -> Message:
        made = new_message(key, payload, self._shape.topic, run=run, number=str(number))
        first = self._firsts.setdefault((key, number), made)
        headers = made.headers | {"id": first.headers["id"]}
        return Message(first.event_id, made.topic, key, headers, payload, first.dedupe_id, 0, 0)


def judge(subjects: Sequence[Subject], stored: Sequence[Copy]) -> Findings:
    """Compare what is stored, in the broker's order, with the runs that were sent."""
    found = Findings(messages=len(stored))
    by_run: dict[str, list[int]] = defaultdict(list)
    upto = {subject.key: 0 for subject in subjects}
    rejected = {subject.key: subject.rejected for subject in subjects}
    seen: dict[str, set[int]] = {subject.key: set() for subject in subjects}
    for copy in stored:
        by_run[copy.run].append(copy.number)
        if copy.number in seen[copy.key]:
            found.duplicates += 1
            continue
        seen[copy.key].add(copy.number)
        found.disordered += copy.number < upto[copy.key] or any(
            n not in seen[copy.key] and n not in rejected[copy.key]
            for n in range(upto[copy.key], copy.number)
        )
        upto[copy.key] = max(upto[copy.key], copy.number + 1)
    for subject in subjects:
        found.misanswered += subject.misanswered
        delivered = set(range(subject.next)) - subject.rejected
        found.lost += len(delivered - seen[subject.key])
        for name, numbers in subject.runs.items():
            firsts = list(dict.fromkeys(by_run.get(name, [])))
            found.runs += 1
            found.cut += 0 < len(firsts) < len(numbers)
            if firsts != list(numbers)[: len(firsts)]:
                found.broken += 1
                kept = next((n for n in numbers if n not in firsts), numbers.stop)
                found.beyond += sum(n > kept for n in firsts)
    return found
