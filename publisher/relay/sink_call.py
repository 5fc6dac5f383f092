"""One call of the sink: the messages that it gets, and the end of each row by its answer."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from time import time_ns
from typing import cast

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.message_map import Mapper
from dsql_outbox.publisher.relay.memory.pages import DELIVERED, SENT, Page, Part
from dsql_outbox.publisher.relay.memory.subjects import Subject, messages_in
from dsql_outbox.publisher.sinks.port import (
    MAX_RUN_BYTES,
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
)
from dsql_outbox.schema.outbox_rows import Fault

from .answers import Answers
from .outcomes import Outcomes


class SinkCall:
    """One call of the sink: the runs of some subjects, and what their answers lead to.

    No run has rows of two epochs: its subject belongs to one `Shard`, which is lost with its
    epoch. A run that the end of its lease cuts too late does no harm to the order, since it is
    a prefix and the next owner begins at its first unsettled row. It sends copies.
    """

    def __init__(
        self,
        taken: Sequence[Subject | Page],
        outcomes: Outcomes,
        note_answer: Callable[..., None],
        mapper: Mapper | None = None,
    ) -> None:
        self._pages = [each for each in taken if isinstance(each, Page)]
        self._subjects = [each for each in taken if isinstance(each, Subject)]
        self._outcomes = outcomes
        self._note_answer = note_answer
        self._mapper = mapper
        self._messages: list[Message] = []
        self.answers = Answers(self._messages, self._take)
        """What the sink calls for each message."""
        self._owners: list[Subject | Page] = []
        """The subject or page of each message; those of pages come first."""
        self._indexes: list[int] = []
        """The index of each message of a page there."""
        self._answered: list[Page] = []
        """The pages with rows that are delivered, and not ended."""
        self._keys: set[str] = set()
        """The keys of the messages. An invalid row may have the key of another shard. It waits for
        the next call, since runs with one key are taken for one run."""
        self._skipped = Counter[int]()
        """How many rows the map leaves out behind a message, which are settled after it."""
        self._unmapped: list[tuple[Subject, Message, Retry | Rejected]] = []
        """The subjects whose first message the map fails for, or rejects."""
        self._is_mapped = False
        """Whether the map was called."""
        self._has_answers = False
        self._error: Exception | None = None

    def prepare_messages(self, is_late: Callable[[], bool]) -> list[Message]:
        """The messages of the rows; a run ends before a row that no sink gets, since it fails.

        Once it `is_late`, the map is called no more, but at least once.
        """
        picked_up_ns = time_ns()
        messages = self._messages
        for page in self._pages:
            self._add_page(page, messages, picked_up_ns, is_late)
        made = messages_in(self._subjects, picked_up_ns)
        for number, subject in enumerate(self._subjects):
            if self._is_mapped and is_late():
                for each in self._subjects[number:]:
                    self._outcomes.give_back(each)
                break
            began = len(messages)
            run = list(islice(made, len(subject.busy)))
            if subject.key in self._keys:
                self._outcomes.give_back(subject)
                continue
            self._keys.add(subject.key)
            if self._mapper is not None:
                self._add_mapped(self._mapper, subject, run, messages, is_late)
            else:
                for message in run:
                    if isinstance(message, Fault):
                        self._outcomes.reject(subject, message, len(messages) - began)
                        break
                    messages.append(message)
            self._owners += [subject] * (len(messages) - began)
        if self._mapper is not None:
            self._fail_unmapped(self._mapper)
        return messages

    def _add_page(
        self,
        page: Page,
        messages: list[Message],
        picked_up_ns: int,
        is_late: Callable[[], bool],
    ) -> None:
        """Add the messages of a page. A row that goes to no sink is skipped, or leaves the page."""
        self._subjects += dict.fromkeys(page.subjects.values())  # they left it just now
        if not self._keys.isdisjoint(page.keys):
            for at, key in enumerate(page.keys):
                if key in self._keys and at not in page.subjects:
                    self._outcomes.give_back(self._outcomes.take_out(page, at))
        here = [at for at in range(len(page)) if at not in page.subjects]
        made = list(page.messages(here, picked_up_ns))
        if self._mapper is not None or Fault in map(type, made):
            here, made = self._one_by_one(page, here, made, is_late)
        messages += cast("list[Message]", made)
        self._keys.update(page.keys[at] for at in here)
        self._indexes += here
        self._owners += [page] * len(made)

    def _one_by_one(
        self,
        page: Page,
        indexes: Sequence[int],
        stored: Sequence[Message | Fault],
        is_late: Callable[[], bool],
    ) -> tuple[list[int], list[Message | Fault]]:
        """Return the rows that are sent, and their messages. With a map no run is longer than 1."""
        forms: dict[int, Message | Fault] = {}
        skipped: list[int] = []
        outcomes, mapper = self._outcomes, self._mapper
        for at, message in zip(indexes, stored, strict=True):
            if at in page.subjects:
                continue
            if isinstance(message, Fault):
                self._subjects.append(outcomes.take_out(page, at))
            elif mapper is None:
                forms[at] = message
            elif self._is_mapped and is_late():
                outcomes.give_back(outcomes.take_out(page, at))
            elif (made := self._map(mapper, message)) is None:
                skipped.append(at)
            elif isinstance(made, Message):
                forms[at] = made
            else:
                self._unmapped.append((outcomes.take_out(page, at), message, made))
        if skipped:
            outcomes.skip_part(Part(page, skipped))
        if mapper is not None and mapper.works(page.topic):
            outcomes.note_mapped(page.topic)
        sent = [at for at in forms if at not in page.subjects]  # a later row may have left with it
        return sent, [forms[at] for at in sent]

    def _map(self, mapper: Mapper, message: Message) -> Message | Retry | Rejected | None:
        self._is_mapped = True
        return mapper.map(message)

    def _add_mapped(
        self,
        mapper: Mapper,
        subject: Subject,
        run: Sequence[Message | Fault],
        messages: list[Message],
        is_late: Callable[[], bool],
    ) -> None:
        """Add the wire forms of a run. Rows that the map leaves out are settled in their order.

        A row that fails, or that makes the run too large, begins the next run.
        """
        outcomes, topic = self._outcomes, subject.busy_row.topic
        size = first = 0
        for at, stored in enumerate(run):
            if at and is_late():
                outcomes.cut(subject, at)
                break
            if isinstance(stored, Fault):
                outcomes.reject(subject, stored, at)
                break
            made = self._map(mapper, stored)
            if made is None:
                if at == first:
                    first += 1
                else:
                    self._skipped[len(messages) - 1] += 1
                continue
            if isinstance(made, Message):
                if len(run) > 1 and (size := size + _bytes(made)) > MAX_RUN_BYTES and at > first:
                    outcomes.cut(subject, at)
                    break
                messages.append(made)
                continue
            self._stop_before(at, subject, stored, made)
            break
        for _ in range(first):
            outcomes.skip(subject)
        if mapper.works(topic):
            outcomes.note_mapped(topic)

    def _stop_before(
        self, at: int, subject: Subject, message: Message, outcome: Retry | Rejected
    ) -> None:
        """End a run before the row at this index, which fails, or note that it is the first."""
        if at:
            self._outcomes.cut(subject, at)
        else:
            self._unmapped.append((subject, message, outcome))

    def _fail_unmapped(self, mapper: Mapper) -> None:
        """Act on failures of the map: of a message, or of all messages of its topic so far.

        Only now, since the map may work for another message of the call.
        """
        for subject, message, outcome in self._unmapped:
            if isinstance(outcome, Rejected) or mapper.works(message.topic):
                mapper.tell(message, outcome)
                self._outcomes.fail(subject, outcome)
            else:
                error = outcome.error.partition("\n")[0]
                self._outcomes.refuse(subject, error, is_unmapped=True)

    @property
    def shards(self) -> list[int]:
        """The shards of its messages."""
        return sorted({owner.shard.number for owner in self._owners})

    def epochs(self) -> dict[int, int]:
        """The leases of the shards that have a message without an answer.

        A shard whose messages are all answered may be handed over, which must not cut the others.
        """
        owners = {self._owners[index] for index in self.answers.waiting(range(len(self._owners)))}
        return {owner.shard.number: owner.shard.epoch for owner in owners}

    def _take(self, index: int, outcome: Outcome) -> None:
        """Act on the next answer of a run."""
        owner = self._owners[index]
        if isinstance(owner, Page):
            at = self._indexes[index]
            if isinstance(outcome, Delivered) and owner.stages[at] == SENT:
                self._deliver(owner, at)
                return
            owner = self._take_out(owner, at)
        is_first = not self._has_answers and not isinstance(outcome, NotAttempted)
        self._has_answers |= is_first
        self._act_on(index, owner, outcome)
        self._note_answer(first=is_first)

    def _deliver(self, page: Page, at: int) -> None:
        """Note that a row of a page is delivered. Those of one turn of the loop end together."""
        if not self._answered:  # it fails in another thread, where no sink may answer
            asyncio.get_running_loop().call_soon(self._end_turn)
        page.stages[at] = DELIVERED
        if not page.answered:
            self._answered.append(page)
        page.answered.append(at)

    def _end_turn(self) -> None:
        try:
            self._end_delivered()
        except Exception as error:  # noqa: BLE001 - `end` raises it: nobody awaits a callback
            self._error = error

    def _end_delivered(self) -> None:
        """End the rows of pages that are delivered."""
        pages, self._answered = self._answered, []
        for page in pages:
            indexes, page.answered = page.answered, []
            self._outcomes.deliver_part(Part(page, indexes))
        if pages:
            is_first, self._has_answers = not self._has_answers, True
            self._note_answer(first=is_first)

    def _take_out(self, page: Page, at: int) -> Subject:
        """The subject of a row of a page. Its run leaves the page, unless it has left."""
        self._end_delivered()  # first: an answer that came before may have another meaning later
        subject = page.subjects.get(at)
        return self._outcomes.take_out(page, at) if subject is None else subject

    def _act_on(self, index: int, subject: Subject, outcome: Outcome) -> None:
        self._outcomes.act_on(subject, outcome)
        if self._skipped and isinstance(outcome, Delivered):
            for _ in range(self._skipped.pop(index, 0)):
                self._outcomes.skip(subject)

    def end(self) -> None:
        """End the call: messages without an answer were not attempted.

        Raises the error that the end of a row raised, if there was one.
        """
        if self._error is not None:
            raise self._error
        self._end_delivered()
        self.answers.end()


def _bytes(message: Message) -> int:
    """The bytes of payload and headers, about."""
    headers = (*message.headers.values(), *message.wire_headers.values())
    return len(message.payload) + len("".join(headers))
