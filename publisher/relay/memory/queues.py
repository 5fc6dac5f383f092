"""The rows in memory: which are admitted, and which are sent next. No I/O.

It keeps the promise of order per subject:

- A row is admitted only if it is not known yet, and the subject's row before it is absent
  from the same snapshot, was admitted earlier, or is settled.
- Rows of a subject wait in the order of their admission. One run of them is on its way at a
  time, so a slow subject delays only itself. A sink that keeps no order has runs of one row.
- A subject with rows in a page (`pages`) has no other rows. Its rows leave the page when a later
  one is admitted.
- A settled row stays known until a read that began after its deletion has ended, since an
  older snapshot still shows it.

A row that cannot be admitted is dropped, and its position noted, so that it is read again.

Topics share the memory and the messages on their way (`shares`). When the memory is full, rows
of topics above their shares are dropped.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain, islice
from typing import Final

from dsql_outbox.publisher.relay.store import HEAD, PassedOver, RowPlace
from dsql_outbox.schema.outbox_rows import OutboxRow, RawRow, Stage

from .pages import Page, Part
from .paging import pages_of
from .rows import Rows
from .shares import OWN, RETRIES
from .subjects import Shard, Subject
from .topics import TopicPauses

MAX_PASSED: Final = 1_000
"""The most subjects that a read passes over; more make the statement slower than they save."""


class Queues:
    """The rows of all shards of one publisher."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._shares = rows.shares
        self.pages = defaultdict[Shard, dict[str, Page]](dict)
        """The pages of the subjects with rows in one, by shard and key; no `Shard` has these."""
        self.has_pages = True
        """Whether rows may be in pages; else each one is in the queue of its subject."""
        self._ready: dict[str, deque[Subject | Page]] = {}
        """The subjects and pages that can send a row, by the share of it: topics and `RETRIES` take
        turns."""
        self._limited: set[str] = set()
        """The topics that had as many rows on their way as they may, when rows were taken."""
        self._resting: deque[tuple[float, Subject]] = deque()

    def has_enough(self, subjects: int) -> bool:
        """Whether to read no more now: the memory is full, or so many subjects can send a row.

        Subjects of a topic that has enough on its way cannot.
        """
        if self._shares.is_full:
            return True
        left = subjects
        for topic, ready in self._ready.items():
            if topic not in self._limited:
                left -= len(ready) if len(ready) >= left else _subjects(ready)
        return left <= 0

    def is_crowded(self, row: OutboxRow) -> bool:
        """Whether this row, which cannot be sent now, takes the room of others."""
        return self._shares.is_full or row.share in self._shares.full

    # --- read --------------------------------------------------------------------------

    def admit_pages(
        self, shard: Shard, rows: Sequence[RawRow], topics: TopicPauses
    ) -> tuple[int, Sequence[RawRow]]:
        """Admit the rows of one range that can be in pages.

        Returns how many came into memory, and the other ones.
        """
        if not self.has_pages:
            return 0, rows
        paged = self.pages[shard]
        pages, others = pages_of(shard, rows, self._rows, paged, topics.is_paused)
        for page in pages:
            self._rows.move(page.part, "waiting")
            paged.update(dict.fromkeys(page.keys, page))
            self._ready.setdefault(page.topic, deque()).append(page)
        return sum(map(len, pages)), others

    def admit(
        self,
        shard: Shard,
        rows: Iterable[OutboxRow],
        now: float,
        topics: TopicPauses,
        looked: int | None,
    ) -> int:
        """Admit the rows of one range. Returns how many came into memory.

        `looked` is the position from which on this read looks for rows again, if it does.
        """
        admitted, known, are_paused = 0, self._rows.known, topics.are_paused
        for row in rows:
            if row.id in known or (are_paused and not topics.takes(row, now)):
                continue
            self.take_out_of(shard, row.key)
            subject = shard.subject(row.key, row.subject_type, row.subject_id)
            if (subject.holds and subject.holds_back(row.id, now)) or subject.is_full:
                subject.pass_over(row.position, row.topic)
            elif row.waits and not self._rows.knows_predecessor(row):
                self._wait_for_predecessor(subject, row, looked)
            else:
                self._add(subject, row)
                if are_paused:
                    topics.choose(row)  # only now: a row that waits could never try its topic
                admitted += 1
        return admitted

    def _wait_for_predecessor(self, subject: Subject, row: OutboxRow, looked: int | None) -> None:
        """Drop a row; read from its predecessor on, unless a scan will come there anyway.

        If this read has looked there already, the predecessor was passed over, or
        belongs to a topic that is paused; the next sweep finds both.
        """
        shard = subject.shard
        before = row.previous_position
        is_ahead = shard.sweep.is_running and shard.sweep.place.position < before
        if not is_ahead and (looked is None or before < looked):
            subject.pass_over(before, row.topic)
        shard.forget_if_idle(subject)

    def _add(self, subject: Subject, row: OutboxRow) -> None:
        row.size = row.bytes()
        if subject.hold is not None and subject.hold.id == row.id:
            row.share = RETRIES
        self._rows.move(row, "waiting")
        subject.rows.append(row)
        if not subject.busy and len(subject.rows) == 1:
            self._make_ready(subject)

    # --- out of a page -------------------------------------------------------------------

    def take_out_of(self, shard: Shard, key: str) -> None:
        """Let the rows of a subject leave their page, if they are in one."""
        page = self.pages[shard].get(key)
        if page is not None:
            self.take_out(page, page.keys.index(key))

    def take_out(self, page: Page, at: int) -> Subject | None:
        """Let the run at this index of a page be one of its subject, which is returned.

        None: all of it is delivered.
        """
        shard, run = page.shard, page.run(at)
        self.pages[shard].pop(page.keys[at], None)
        if not run:
            return None
        rows = [page.row(each) for each in run]
        first = rows[0]
        subject = shard.subject(first.key, first.subject_type, first.subject_id)
        for row in rows:
            self._rows.leave_page(page, row)
        page.leave(run, subject)
        if first.stage == "sent":
            subject.busy += rows
        else:
            subject.rows += rows
            self._make_ready(subject)
        return subject

    def break_up(self, page: Page, longest: int) -> None:
        """Let runs with more rows than `longest` leave a page that waits."""
        at = 0
        while at < len(page):
            run = page.run(at)
            if len(run) > longest:
                self.take_out(page, at)
            else:
                at = run.stop
        page.longest = longest

    # --- send --------------------------------------------------------------------------

    def rotate(self, share: float) -> None:
        """Let other subjects come first; `share` of all of them, from 0 to 1, go last."""
        for ready in self._ready.values():
            ready.rotate(-int(share * len(ready)))
        topics = deque(self._ready.items())
        topics.rotate(-int(share * len(topics)))
        self._ready = dict(topics)

    def take(
        self, most: int, *, free: int, of: int, may_send: Callable[[Subject | Page], int]
    ) -> list[Subject | Page]:
        """Take pages and a run of each of several subjects, with up to `most` rows in all.

        `may_send` returns how many rows a run of the subject may have; it drops the rows of a
        subject or page that may not send, and returns 0.

        The topics take turns, and so do the subjects of each. Of the `of` rows that may be on
        their way, `free` are not. A topic takes its share, but leaves as many as it has, unless
        these are few.
        """
        taken: list[Subject | Page] = []
        limited: list[str] = []
        left = most
        uses = self._shares.uses
        # A topic without a use has no row: all of its rows were dropped or lost.
        turns = deque(
            (topic, uses[topic], max(1, of * self._shares.to_send(topic)))
            for topic in self._ready
            if topic in uses
        )
        while turns and left > 0:
            topic, use, share = turn = turns.popleft()
            room = min(share, max(free - most + left, of * OWN)) - use.busy
            # A run takes half of the room, or the others would wait for the first answer.
            longest = max(1, min(left, int(room / 2)))
            if room <= 0:
                limited.append(topic)
            elif (
                each := self._next(topic, min(left, int(room) or 1), longest, may_send)
            ) is not None:
                taken.append(each)
                left -= rows_in(each)
                turns.append(turn)
        self._limited = set(limited)
        later = (topic for topic, _, _ in turns)
        self._ready = {topic: self._ready[topic] for topic in (*limited, *later)}
        return taken

    def _next(
        self, topic: str, room: int, longest: int, may_send: Callable[[Subject | Page], int]
    ) -> Subject | Page | None:
        """Take the next page of a topic, with `room` rows at most, or a run of its next subject."""
        ready = self._ready[topic]
        while ready:
            each = ready.popleft()
            if isinstance(each, Page):
                if each.rows and (most := may_send(each)):
                    if each.longest > most:
                        self.break_up(each, most)
                    if page := self._cut(each, room):
                        self._rows.move(page.part, "sent")
                        return page
                continue
            # It may have been dropped or lost meanwhile, or have another first row and turn.
            is_next = each.rows and not each.busy and each.rows[0].share == topic
            if is_next and (most := may_send(each)):
                each.begin(min(most, longest))
                for row in each.busy:
                    self._rows.move(row, "sent")
                if each.passed is not None:
                    each.want_passed()
                return each
        return None

    def _cut(self, page: Page, room: int) -> Page | None:
        """A page with `room` rows at most; its others keep their turn. None: there is none."""
        if len(page) <= room:
            return page if page.rows else None
        ready = self._ready[page.topic]
        ready.appendleft(page)
        if (first := page.cut(room)) is None:
            self.take_out(page, 0)
            ready.rotate()  # that run has this turn
        else:
            self._rows.leave_page(page, first.part)
            self.pages[page.shard].update(dict.fromkeys(first.keys, first))
        return first

    def _make_ready(self, subject: Subject) -> None:
        """Let a subject wait for the turn of its first row, if it has one."""
        if subject.rows:
            self._ready.setdefault(subject.rows[0].share, deque()).append(subject)

    def requeue(self, subject: Subject, at: int) -> None:
        """Let the rows of a run from the index `at` on wait again."""
        run, is_lost = subject.busy, subject.shard.is_lost
        for row in run[at:]:
            self._rows.move(row, "outbox" if is_lost else "waiting")
        if not is_lost:
            subject.rows[:0] = run[at:]
        del run[at:]

    def requeue_later(self, subject: Subject, until: float) -> None:
        """Let the rows of a run wait again, and be sent later if the shard is not lost."""
        self.requeue(subject, 0)
        if not subject.shard.is_lost:
            self._resting.append((until, subject))

    def end_rests(self, now: float) -> float:
        """Let subjects go on whose rest is over. Returns seconds until the next rest ends."""
        while self._resting and self._resting[0][0] <= now:
            self._make_ready(self._resting.popleft()[1])
        return self._resting[0][0] - now if self._resting else float("inf")

    def finish(self, subject: Subject, to: Stage) -> OutboxRow:
        """Let the busy row leave for good. Behind the last row of a run its subject goes on."""
        row = subject.busy.pop(0)
        self._rows.move(row, to)
        if to != "outbox" and subject.shard.is_lost:  # an old snapshot must not bring it again
            self._rows.know(row)
        if not subject.busy:
            if subject.rows:
                self._make_ready(subject)
            elif subject.passed is not None:
                subject.want_passed()
            elif not subject.holds:
                subject.shard.subjects.pop(subject.key, None)
        return row

    def finish_part(self, part: Part) -> None:
        """Let rows of a page leave for good; the subject of each goes on behind its last one."""
        page = part.page
        pages = self.pages.get(page.shard, {})
        for at in part.indexes:
            page.let_go(at)
            key = page.keys[at]
            if pages.get(key) is page and page.ends_run(at):
                del pages[key]

    def drop(self, subject: Subject) -> None:
        """Drop the rows of a subject that must wait, from its busy row on; they are read again."""
        subject.rows[:0] = subject.busy
        subject.busy.clear()
        if subject.rows:
            first = self._clear(subject)
            # Only now: a subject that is full would not want its rows back.
            subject.pass_over(first.position, first.topic)

    def _clear(self, subject: Subject) -> OutboxRow:
        """Drop the rows of a subject that wait. Returns the first of them."""
        first = subject.rows[0]
        for row in subject.rows:
            self._rows.move(row, "outbox")
        subject.rows.clear()
        # A read that was cut may have passed over rows from here on, or from before; while there
        # were rows in memory, that was not wanted, and reads left this subject out.
        subject.want_passed()
        return first

    def drop_page(self, page: Page, *, is_wanted: bool) -> None:
        """Drop a page that may not be sent now. If it `is_wanted`, a scan returns to its rows."""
        if is_wanted:
            self._pass_over(page, 0)
        self._drop_part(page.part)

    # --- make room -----------------------------------------------------------------------

    def make_room(self, shards: Iterable[Shard]) -> None:
        """If the memory is full, drop rows of topics above their shares, the newest first.

        They are read again when their topic has room. A failed row stays, since it has a time.
        """
        shares = self._shares
        if not shares.is_full:
            return
        above = {topic: use for topic, use in shares.uses.items() if shares.is_above(use)}
        for use in above.values():
            use.has_spare = False  # or the next reads would bring the same rows again
        for shard in shards:
            for subject in reversed(list(shard.subjects.values())):
                if subject.rows and not subject.holds:
                    topic = subject.rows[0].topic
                    if topic in above and shares.is_above(above[topic]):
                        self._drop_waiting(subject)
            for page in reversed(list(dict.fromkeys(self.pages[shard].values()))):
                while page.waits and page.topic in above and shares.is_above(above[page.topic]):
                    self._drop_last(page)
        for topic in above.keys() & self._ready.keys():  # else their subjects would come back twice
            self._ready[topic] = deque(each for each in self._ready[topic] if each.rows)

    def _drop_waiting(self, subject: Subject) -> None:
        """Drop the rows of a subject that wait, also those behind its busy row.

        Not the subject but its topic is noted as passed over, however many subjects that are.
        """
        shard, first = subject.shard, self._clear(subject)
        shard.pass_topics((first.topic,), RowPlace(first.position, HEAD.event_id))
        shard.forget_if_idle(subject)

    def _drop_last(self, page: Page) -> None:
        """Drop the last run of a page that waits, and note its topic as passed over."""
        run = page.run(len(page) - 1)
        self._pass_over(page, run.start)
        self._drop_part(Part(page, run))

    def _pass_over(self, page: Page, at: int) -> None:
        """Note the topic of a page as passed over, from the row at an index on."""
        place = RowPlace(page.ids[at].position, HEAD.event_id)
        page.shard.pass_topics((page.topic,), place)

    def _drop_part(self, part: Part) -> None:
        page = part.page
        self._rows.move(part, "outbox")
        for key in part.keys:
            self.pages[page.shard].pop(key, None)
        page.remove(part.indexes[0], part.indexes[-1] + 1)

    def forget_shard(self, shard: Shard) -> None:
        """Forget a shard that belongs to another publisher, or to this one under another epoch."""
        paged = self.pages[shard]
        for page in dict.fromkeys(paged.values()):
            if page.waits:
                self._drop_part(page.part)
        for key in [*paged]:  # those on their way
            self.take_out_of(shard, key)
        del self.pages[shard]
        shard.is_lost = True
        for subject in shard.subjects.values():
            for row in subject.busy:  # their answers count, but the next read may bring them
                self._rows.forget(row)
            if subject.rows:
                self._clear(subject)


def rows_in(each: Subject | Page) -> int:
    """The number of rows of a page, or of a run."""
    return len(each) if isinstance(each, Page) else len(each.busy)


def _subjects(ready: Iterable[Subject | Page]) -> int:
    """The number of subjects, about, of which a row can be sent."""
    return sum(len(each) if isinstance(each, Page) else 1 for each in ready)


def passed_over(shards: Iterable[Shard], topics: Collection[str]) -> PassedOver:
    """The subjects and topics that the next read passes over."""
    closed = chain.from_iterable(shard.closed.values() for shard in shards)
    subjects = islice(closed, MAX_PASSED)
    return PassedOver({s.name: s.passed for s in subjects if s.passed is not None}, topics)
