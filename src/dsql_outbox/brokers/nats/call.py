"""The messages of one call of the sink, on their way to JetStream."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from nats.errors import ConnectionClosedError

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Answer, Delivered, Outcome, Rejected, key_runs

from .acknowledgement import (
    Acknowledgement,
    has_no_responders,
    no_right,
    outcome_of,
    read_answer,
    silence,
)
from .batches import Batches, batch_headers
from .frame import BadMessage, make_frame

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_WINDOW: Final = 256  # unanswered messages of a call at a time; a larger window is not faster
_CHUNK: Final = 64  # messages that are handed to the connection together

_DELIVERED: Final = Delivered()


class _NatsRun:
    """The messages of one key; most runs are of one message.

    A run goes step by step, and one step at a time is on its way: a message alone, the first
    message of a batch, or all that is left of it.
    """

    def __init__(self, left: range) -> None:
        self.left = left
        """The messages that are not stored."""
        self.batch = range(0)
        """Those of them in the batch that is open."""
        self.is_opening = False
        """Whether the first message of the batch waits for its answer alone."""
        self.on_way = 0
        """How many messages wait for the answer."""


class NatsCall:
    """The runs of one call: their next steps, and what the answers mean for them.

    `reply` is the subject of the answers, without the index of the message. `may_go_on` says
    whether there is time for another step of a run.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        answer: Answer,
        batches: Batches,
        reply: str,
        may_go_on: Callable[[], bool],
    ) -> None:
        self.is_lost = False
        self._messages = messages
        self._answer = answer
        self._batches = batches
        self._reply = reply
        self._may_go_on = may_go_on
        self._due = deque(map(_NatsRun, key_runs(messages)))
        self._left = len(self._due)
        self._waiting: dict[int, _NatsRun] = {}
        self._in_flight = 0
        self._heard: set[str] = set()
        self._changed = asyncio.Event()

    async def wait_for_more(self) -> bool:
        """Wait until messages are to be sent, and return True; False when all runs have ended.

        Raises `ConnectionClosedError` when the connection is lost.
        """
        while not self.is_lost and self._left and not self._is_ready:
            self._changed.clear()
            await self._changed.wait()
        if self.is_lost:
            raise ConnectionClosedError
        return self._left > 0

    @property
    def _is_ready(self) -> bool:
        return bool(self._due) and self._in_flight <= _WINDOW - _CHUNK

    def frames(self, max_payload: int) -> bytes:
        """The frames of the next steps of some runs.

        A message that NATS cannot take is rejected.
        """
        frames: list[bytes] = []
        while self._due and len(frames) < _CHUNK:
            run = self._due.popleft()
            if run.batch:
                made = self._rest_of_batch(run, max_payload)
            elif self._batches.takes(self._messages[run.left.start], len(run.left)):
                made = self._batch(run, max_payload)
            else:
                made = self._single(run, max_payload)
            frames += made
            run.on_way = len(made)
            self._in_flight += run.on_way
        return b"".join(frames)

    def _single(self, run: _NatsRun, max_payload: int) -> list[bytes]:
        index = run.left.start
        try:
            frame = make_frame(self._messages[index], f"{self._reply}.{index}", max_payload)
        except BadMessage as error:
            self._finish(run, Rejected(str(error)))
            return []
        self._waiting[index] = run
        return [frame]

    def _batch(self, run: _NatsRun, max_payload: int) -> list[bytes]:
        run.batch = run.left
        self._batches.open += 1
        if self._batches.is_proven(self._messages[run.left.start].topic):
            return self._rest_of_batch(run, max_payload)
        run.is_opening = True
        return self._of_batch(run, range(run.left.start, run.left.start + 1), max_payload)

    def _rest_of_batch(self, run: _NatsRun, max_payload: int) -> list[bytes]:
        start = run.batch.start + run.is_opening
        run.is_opening = False
        return self._of_batch(run, range(start, run.batch.stop), max_payload)

    def _of_batch(self, run: _NatsRun, indexes: range, max_payload: int) -> list[bytes]:
        """The frames of some messages of a batch, of which the last one asks for an answer."""
        # JetStream takes 64 characters of a name. The end is what differs.
        name, last = f"{self._reply}.{run.batch.start}"[-64:], indexes[-1]
        frames: list[bytes] = []
        for index in indexes:
            reply = f"{self._reply}.{index}" if index == last else ""
            number, ends = index - run.batch.start + 1, index == run.batch[-1]
            headers = batch_headers(name, number, ends=ends)
            try:
                frames.append(make_frame(self._messages[index], reply, max_payload, headers))
            except BadMessage:  # one by one, until it is its turn
                self._go_one_by_one(run, Acknowledgement())
                return []
        self._waiting[last] = run
        return frames

    def take(self, index: int, answer: "Msg") -> None:
        """Take an answer; one that nobody waits for is ignored."""
        run = self._waiting.pop(index, None)
        if run is None:
            return
        self._in_flight -= run.on_way
        read = read_answer(answer)
        if run.batch:
            self._take_of_batch(run, answer, read)
        else:
            self._take_single(run, answer, read)
        if self._is_ready or not self._left:
            self._changed.set()

    def _take_of_batch(self, run: _NatsRun, answer: "Msg", read: Acknowledgement) -> None:
        topic = self._messages[run.left.start].topic
        if run.is_opening:
            if not answer.data and not has_no_responders(answer):
                self._batches.prove(topic)
                self._due.appendleft(run)
            elif read.stream and read.error is None:  # an old server has stored the message
                self._close_batch(run)
                self._batches.disable(topic)
                self._take_single(run, answer, read)
            else:
                self._go_one_by_one(run, read)
            return
        if read.error is None and read.count == len(run.batch):
            self._close_batch(run)
            self._answer_stored(run, len(run.left))
        else:
            self._go_one_by_one(run, read)

    def _take_single(self, run: _NatsRun, answer: "Msg", read: Acknowledgement) -> None:
        message = self._messages[run.left.start]
        outcome = outcome_of(answer, read, message.topic)
        if type(outcome) is not Delivered:
            self._finish(run, outcome)
            return
        if not read.duplicate:
            self._batches.note_stored(message)
        self._answer_stored(run, 1)

    def _answer_stored(self, run: _NatsRun, count: int) -> None:
        self._heard.add(self._messages[run.left.start].topic)
        for index in run.left[:count]:
            self._answer(index, _DELIVERED)
        run.left = run.left[count:]
        if run.left and self._may_go_on():
            self._due.append(run)
        else:
            self._finish(run, None)

    def _go_one_by_one(self, run: _NatsRun, read: Acknowledgement) -> None:
        """Go on one by one: the next answers tell what is wrong."""
        code = 0 if read.error is None else read.error.err_code
        self._batches.refuse(self._messages[run.left.start], code)
        self._close_batch(run)
        self._due.append(run)

    def _close_batch(self, run: _NatsRun) -> None:
        run.batch, run.is_opening = range(0), False
        self._batches.open -= 1

    def _finish(self, run: _NatsRun, outcome: Outcome | None) -> None:
        """End a run; the outcome is that of its first message that is not stored."""
        if outcome is not None:
            self._answer(run.left.start, outcome)
        if run.batch:
            self._close_batch(run)
        run.left = range(0)
        self._left -= 1

    def refuse(self, subject: str) -> None:
        """The server takes nothing for the subject, which it names in lower case."""
        for index, run in list(self._waiting.items()):
            topic = self._messages[run.left.start].topic
            if topic.lower() == subject:
                del self._waiting[index]
                self._in_flight -= run.on_way
                self._finish(run, no_right(topic))
        self._changed.set()

    def lose(self) -> None:
        """End the wait: no further answer can come."""
        self.is_lost = True
        self._changed.set()

    def end(self, seconds: float) -> None:
        """Answer for the topics that were silent for all of these seconds."""
        for run in self._waiting.values():
            topic = self._messages[run.left.start].topic
            if topic not in self._heard:
                self._answer(run.left.start, silence(topic, seconds))

    def close(self) -> None:
        """Take no more answers."""
        for run in {*self._waiting.values(), *self._due}:
            if run.batch:
                self._close_batch(run)
        self._waiting.clear()
