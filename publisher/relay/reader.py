"""Read: find the rows that may be sent, fairly over shards and over old and new rows."""

import logging
import random
from collections.abc import Collection, Mapping, Sequence
from heapq import nlargest, nsmallest
from itertools import islice
from typing import Final, Literal, NamedTuple
from uuid import UUID

import psycopg
from anyio.lowlevel import checkpoint

from dsql_outbox.outbox.failure import LASTING, FailureKind, kind_of, text_of
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.relay.memory.queues import MAX_PASSED, passed_over
from dsql_outbox.publisher.relay.memory.scans import MAX_VISITS, QUICK, Scan, Sweep, Tail
from dsql_outbox.publisher.relay.memory.shares import RETRIES
from dsql_outbox.publisher.relay.memory.subjects import Hold, Shard, Subject
from dsql_outbox.publisher.relay.memory.topics import Trial
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId
from dsql_outbox.schema.refused_topics import MAX_NAMED

from .state import RelayState, outage_wait
from .store import (
    HEAD,
    MAX_FAILURES,
    Range,
    RangeRead,
    Reading,
    RowPlace,
    Store,
    StoredFailure,
    SubjectName,
)

logger: Final = logging.getLogger("dsql_outbox")

_FIRST_WAIT: Final = 0.01
"""Seconds of the first wait without work, doubled for each later one up to `idle_max`. After one
message the next often comes soon; a message alone costs eight reads more."""

_REFRESH: Final = 10.0
"""Seconds after which changes of failures and topics by an operator are noticed."""

_SOME_MORE: Final = 10
"""With those that are too many, one of so many others is forgotten."""

_CHECKED: Final = 1_000
"""Failed rows that are compared with the tables at a time."""

MAX_SUBJECTS: Final = MAX_FAILURES + 20_000
"""The most subjects in memory, 0.9 KB each: those with a failed row, and those of the rows."""

_CHECK_REST: Final = 20
"""The next ones follow after this many times the duration."""

_LATE: Final = 5.0
"""Seconds after which a read that fails was too large, maybe; a statement has 10 seconds."""

_MICROSECONDS: Final = 1_000_000

_TOO_MUCH: Final = frozenset({FailureKind.OUT_OF_MEMORY, FailureKind.OVER_LIMIT})
"""The errors after which half of the rows are read.

Aurora DSQL documents 53200 for a query that needs more than 128 MiB, and answers 54000.
"""

_FORGET: Final = 1.02
"""The seconds that a read usually takes are those of the shortest lately: they grow by this with
each read. A distant storage makes all reads long, and to divide them would only cost more."""

_WEIGHTS: Final = {"sweep": 2, "tail": 1, "again": 1, "back": 1}
"""The shares of the kinds of ranges in the rows of a read, when all have more to read."""

_DUE: Final = 4
"""A read asks for this part of its rows, at most, by their keys."""

_TRIED: Final = 8
"""The map is tried with this part of the rows of a read, at most, at a time."""

Kind = Literal["key", "trial", "again", "back", "sweep", "tail"]


class _Asked(NamedTuple):
    """One range of a read, with its purpose; of a sweep, with the number of its beginning."""

    kind: Kind
    shard: Shard
    range: Range
    subject: Subject | None = None
    row: RowId | None = None
    beginning: int = 0
    trial: Trial | None = None

    @property
    def is_of_this_sweep(self) -> bool:
        """Whether it belongs to a sweep that has not begun again since the range was asked for."""
        return self.kind == "sweep" and self.beginning == self.shard.sweep.beginning


class Reader:
    """Reads rows of the owned shards into memory, one read at a time.

    `failing_since` is the time since when the database does not answer, or None.
    """

    def __init__(
        self, state: RelayState, store: Store, leases: Leases, settings: TunedSettings
    ) -> None:
        self._state = state
        self._store = store
        self._leases = leases
        self._settings = settings
        self._rows = settings.batch_rows
        self._first_wait = min(_FIRST_WAIT, settings.longest_idle)
        self._idle = self._first_wait
        self._refreshed_at = float("-inf")
        self._turn = 0
        self._usual = float("inf")
        self._unchecked: list[tuple[Subject, Hold]] = []
        self._check_at = float("-inf")
        self._settled = -1
        self._stall_began = 0.0
        self.failing_since: float | None = None

    async def run(self) -> None:
        """Read until the relay stops. Raises the driver's error if it is a lasting one."""
        while not self._state.is_stopping:
            await self._state.to_read.wait(await self._step())

    async def _step(self) -> float:
        """Read once. Returns the seconds to wait before the next read."""
        began = self._state.clock()
        try:
            await self._follow()  # first: what follows must see no shard that was lost
            await self._refresh()
            await self._check()
            self._forget_some()
            self._share()
            # With so many subjects ready, more rows would only wait in memory.
            self._state.waits_for_room = self._state.queues.has_enough(4 * self._rows)
            is_full = self._state.waits_for_room
            wait = self._settings.longest_idle if is_full else await self._read()
            if wait:
                why = "enough rows are in memory" if is_full else "no shard has more to read"
                logger.debug("Reads nothing for %.3f s: %s", wait, why)
        except psycopg.Error as error:
            kind = kind_of(error)
            if kind in LASTING:
                raise
            if kind in _TOO_MUCH and self._rows > 1:
                self._rows //= 2
                logger.warning("Relay reads %d rows at a time: %s", self._rows, text_of(error))
                return 0.0
            if self._state.clock() - began > _LATE:  # the rows may be too many for the link
                self._rows = max(1, self._rows // 2)
            if self.failing_since is None:
                self.failing_since = self._state.clock()
            logger.warning("Relay waits for the database: %s", text_of(error))
            return outage_wait(self._state.clock() - self.failing_since)
        self.failing_since = None
        return wait

    # --- which shards ------------------------------------------------------------------

    async def _follow(self) -> None:
        """Forget shards that were lost, also if they were taken again; start with new ones."""
        state = self._state
        epochs = self._leases.usable()
        lost = [s for s in state.shards.values() if epochs.get(s.number) != s.epoch]
        for shard in lost:
            state.queues.forget_shard(shard)
            del state.shards[shard.number]
        if gained := epochs.keys() - state.shards.keys():
            state.stalled_since = None
            failures = await self._store.stored_failures(gained)
            now = state.clock()
            shards = {n: Shard(n, epochs[n]) for n in gained}
            for number, failure in enumerate(failures):
                if number % _CHECKED == 0:
                    await checkpoint()  # there may be very many, and others need the loop
                shard = shards[failure.row.shard]
                shard.restore_failure(failure, subject_key(*failure.subject), now)
            for shard in shards.values():
                if len(failures) >= MAX_FAILURES:
                    shard.note_unknown_failures()
                for subject in shard.subjects.values():
                    state.retry_times.add(subject, subject.holds[0])
            state.shards |= shards

    async def _refresh(self) -> None:
        """Every `_REFRESH` seconds, notice what an operator has changed."""
        state = self._state
        if state.clock() - self._refreshed_at < _REFRESH:
            return
        self._refreshed_at = state.clock()
        paused = await self._store.paused_topics()
        if resumed := state.topics.by_operator.keys() - paused.keys():
            state.resume_topics()
        _tell_pauses("Paused by an operator: %s", paused.keys() - state.topics.by_operator.keys())
        _tell_pauses("Resumed by an operator: %s", resumed)
        state.topics.by_operator = paused
        if not self._unchecked:
            self._unchecked = [
                (subject, subject.holds[0])
                for shard in state.shards.values()
                for subject in shard.subjects.values()
                if subject.holds and subject.holds[0].is_stored and not subject.busy
            ]

    async def _check(self) -> None:
        """Compare some of the failed rows with the tables; it takes a twentieth of the time."""
        state, began = self._state, self._state.clock()
        if not self._unchecked or began < self._check_at:
            return
        held = [each for each in self._unchecked[-_CHECKED:] if _is_at_rest(*each)]
        del self._unchecked[-_CHECKED:]
        stored = await self._store.stored_waits([hold.id for _, hold in held])
        now = state.clock()
        self._check_at = now + _CHECK_REST * (now - began)
        for subject, hold in held:
            if not _is_at_rest(subject, hold):
                continue
            wait = stored.get(hold.id)
            if wait is None:  # it is gone, or is to be tried again
                state.retry_times.forget(subject, hold.id)
            elif wait.attempts != hold.attempts or wait.seconds <= 0:
                hold.attempts, hold.retry_at = wait.attempts, now + wait.seconds
                state.retry_times.add(subject, hold)

    def _forget_some(self) -> None:
        """Forget subjects with failed rows, if they are too many: those to be tried last.

        The database has their times, and `_find_failures` asks for them when a read returns such a
        row. Until then its successors wait for it as for every row before them.
        """
        state = self._state
        shards = state.shards.values()
        excess = sum(len(shard.subjects) for shard in shards) - MAX_SUBJECTS
        if excess <= 0:
            return
        held = [s for shard in shards for s in shard.subjects.values() if s.can_be_forgotten]
        more = MAX_SUBJECTS // _SOME_MORE  # or each read would do this
        for subject in nlargest(excess + more, held, key=lambda each: each.holds[0].retry_at):
            subject.shard.forget(subject)
        state.retry_times.forget_outdated()
        self._unchecked = [each for each in self._unchecked if _is_at_rest(*each)]

    async def _find_failures(self, asked: Collection[_Asked], reading: Reading) -> None:
        """Hold back the rows of a read that failed before, where subjects may not know that."""
        state = self._state
        rows = {
            row.id: (each.shard, row)
            for each, found in zip(asked, reading.ranges, strict=True)
            if each.shard.has_unknown_failures
            for row in map(OutboxRow.read, found.rows)
            if row.id not in state.rows.known and not each.shard.knows_failure(row)
        }
        if not rows:
            return
        waits = await self._store.stored_waits(rows)
        now = state.clock()
        for key, wait in waits.items():
            shard, row = rows[key]
            if shard.is_lost or row.id in state.rows.known or shard.knows_failure(row):
                continue
            subject = SubjectName(row.subject_type, row.subject_id)
            failure = StoredFailure(key, subject, wait.attempts, wait.seconds, row.bytes())
            state.queues.take_out_of(shard, row.key)
            hold = shard.restore_failure(failure, row.key, now)
            shard.note_unknown_failures()
            state.retry_times.add(shard.subjects[row.key], hold)

    # --- one read ----------------------------------------------------------------------

    def _share(self) -> None:
        """Share the memory among the topics: return to those with room, and leave full ones."""
        state = self._state
        shards, shares = state.shards.values(), state.rows.shares
        shares.review(state.clock())
        state.queues.make_room(shards)
        full = shares.full_topics
        for shard in shards:
            if shard.passes_topics:
                shard.leave_topics(full)
                shard.reopen_topics(full)
        if shares.waits_for_deletion:
            state.to_settle.set()

    async def _read(self) -> float:
        """Read once. A failed row has room also if its topic has none."""
        state = self._state
        began = state.clock()
        full = state.rows.shares.full_topics
        news = await self._try_map(began, full)
        keys = self._keys(state.clock())  # asked at once, since meanwhile a hold may end
        unmapped = state.topics.unmapped
        if keys and (full or unmapped):
            news, keys = news + await self._ask(keys, tried=unmapped), []
        news += await self._ask(self._ranges_in_turn([*keys, *self._ranges(began, full)]), full)
        return self._next_wait(state.clock(), news)

    async def _ask(
        self,
        asked: Collection[_Asked],
        full: Collection[str] = (),
        *,
        tried: Collection[str] = (),
    ) -> int:
        """Read some ranges, passing over `full` topics. Returns how many rows were new.

        Rows of topics that are `tried` are returned, though the topics are paused.
        """
        if not asked:
            return 0
        state = self._state
        began = state.clock()
        topics = {*state.topics.passed_over(began, tried), *full}
        passed = passed_over(state.shards.values(), topics)
        for each in asked if full else ():
            # What was wanted of a subject may belong to such a topic, too.
            if each.kind not in {"key", "trial"}:
                each.shard.pass_topics(full, each.range.after)
        state.rows.begin_read()
        try:
            reading = await self._store.read([each.range for each in asked], passed)
            await self._find_failures(asked, reading)
        except BaseException:
            self._take_back(asked, state.clock() - began)
            raise
        news = self._admit(asked, reading)
        state.rows.end_read()
        state.read += news
        if news:
            state.to_send.set()
        # Grow slowly after an error has halved it. A slow link would not bear more rows.
        if state.clock() - began < _LATE / 2:
            self._rows = min(self._settings.batch_rows, self._rows + max(1, self._rows // 8))
        return news

    def _ranges(self, now: float, full: Collection[str]) -> list[_Asked]:
        """The ranges of the scans to read now, those that order depends on first."""
        shards = self._state.shards.values()
        asked: list[_Asked] = []
        again = {shard: place for shard in shards if (place := shard.ask_again(full)) is not None}
        sweeps = _sweeps([shard for shard in shards if shard.sweep.is_due(now)])
        backs = [shard for shard in shards if shard.back.is_running]
        tails = [
            (shard, shard.tail)
            for shard in shards
            if shard.tail and not (shard in sweeps and _covers_tail(shard.sweep, shard.tail))
        ]
        for _, tail in tails:
            tail.go_home(now)
        behind = [shard for shard, tail in tails if tail.is_behind]
        share = _shares(
            self._rows, again=len(again), back=len(backs), sweep=len(sweeps), tail=len(behind)
        )
        resting = max(1, self._rows // 2 // max(1, len(tails)))
        for shard, place in again.items():
            asked.append(self._range("again", shard, shard.again, place, share["again"]))
        for shard in backs:
            back = shard.back
            asked.append(self._range("back", shard, back, back.place, share["back"]))
        for shard in sweeps:
            sweep = shard.sweep
            each = self._range("sweep", shard, sweep, sweep.place, share["sweep"])
            stretch = each.range._replace(until=sweep.stretch.until)
            asked.append(each._replace(range=stretch, beginning=sweep.beginning))
        for shard, tail in tails:
            rows = share["tail"] if tail.is_behind else resting
            asked.append(self._range("tail", shard, tail, tail.place, rows))
        return asked

    def _ranges_in_turn(self, asked: list[_Asked]) -> list[_Asked]:
        """As many ranges as rows can be read, if these are fewer than usual; they take turns.

        Each range returns one row in any case, and rows may be large.
        """
        number, rows = len(asked), self._rows
        if rows == self._settings.batch_rows or number <= rows:
            return asked
        self._turn += rows
        chosen = {(self._turn + n) % number for n in range(rows)}
        self._take_back([each for n, each in enumerate(asked) if n not in chosen])
        return [each for n, each in enumerate(asked) if n in chosen]

    def _keys(self, now: float) -> list[_Asked]:
        """The failed rows whose time has come, and those to try a paused topic with."""
        state, most = self._state, max(1, self._rows // _DUE)
        size = self._settings.batch_bytes * most // self._settings.batch_rows
        is_full = RETRIES in state.rows.shares.full
        due = [] if is_full else state.retry_times.take_due(now, most, size)
        asked = [self._key(subject.shard, subject.holds[0].id, subject) for subject in due]
        for row in state.topics.probes(now):
            shard = state.shards.get(row.shard)
            if shard is None:
                state.topics.give_up_probe(row)
                state.resume_topics()
            else:
                asked.append(self._key(shard, row, None))
        return asked

    async def _try_map(self, now: float, full: Collection[str]) -> int:
        """Read the next rows of a topic that the map works for no message of, if it is time.

        Rows of topics that are in memory are passed over: other scans return to them.
        """
        state = self._state
        trial = state.topics.next_trial(now)
        if trial is None:
            return 0
        if trial.topic in full or any(map(state.rows.known.get, trial.tried)):
            state.topics.rest_trial(trial, now)  # the rows before are on their way yet
            return 0
        trial.begin_step()
        shards = [each for each in state.shards.values() if trial.scan(each.number).is_running]
        most = max(1, self._rows // _TRIED // max(1, len(shards)))
        asked = [self._trial(each, trial, most) for each in shards]
        others = islice(state.rows.shares.uses.keys() - {RETRIES, trial.topic}, MAX_PASSED)
        news = await self._ask(asked, {*full, *others}, tried=[trial.topic])
        if not any(trial.scan(each).is_running for each in state.shards):
            state.topics.end_trial(trial, state.clock())
        elif trial.rows:
            state.topics.rest_trial(trial, state.clock())
        return news

    def _trial(self, shard: Shard, trial: Trial, rows: int) -> _Asked:
        scan = trial.scan(shard.number)
        asked = self._range("trial", shard, scan, scan.place, rows)
        return asked._replace(range=asked.range._replace(visits=MAX_VISITS), trial=trial)

    def _key(self, shard: Shard, row: RowId, subject: Subject | None) -> _Asked:
        return _Asked("key", shard, Range(shard.number, _place_before(row), 1, 1, 1), subject, row)

    def _range(self, kind: Kind, shard: Shard, scan: Scan, place: RowPlace, rows: int) -> _Asked:
        size = max(1, self._settings.batch_bytes * rows // self._settings.batch_rows)
        return _Asked(kind, shard, Range(shard.number, place, rows, size, scan.visits(rows)))

    def _take_back(self, asked: Collection[_Asked], seconds: float = 0.0) -> None:
        """Record that a read had no answer, for `seconds`."""
        for each in asked:
            if each.kind == "again":
                each.shard.begin_again(None)
            elif each.is_of_this_sweep:
                each.shard.sweep.note_outage(
                    self._state.clock(), seconds if seconds > _LATE else 0.0
                )
            elif each.subject is not None:
                self._state.retry_times.add(each.subject, each.subject.holds[0])
                each.subject.close()

    # --- its answer --------------------------------------------------------------------

    def _admit(self, asked: Collection[_Asked], reading: Reading) -> int:
        """Admit the rows of a read and move the scans. Returns how many rows were new."""
        now = self._state.clock()
        looked = {each.shard: each.range.after.position for each in asked if each.kind == "again"}
        self._usual = min(self._usual * _FORGET, reading.seconds)
        more = max(0.0, reading.seconds - 2 * self._usual)
        sweeps = max(1, sum(each.kind == "sweep" for each in asked))
        one = reading._replace(seconds=more / sweeps)  # the other ranges are short
        total = 0
        for each, found in zip(asked, reading.ranges, strict=True):
            if not each.shard.is_lost:
                news = self._admit_range(each, found, one, now, looked)
                total += news
                if found.rows:
                    text = "Shard %d: read %d rows, %d of them new"
                    logger.debug(text, each.shard.number, len(found.rows), news)
        return total

    def _admit_range(
        self,
        each: _Asked,
        found: RangeRead,
        reading: Reading,
        now: float,
        looked: Mapping[Shard, int],
    ) -> int:
        queues, topics, shard = self._state.queues, self._state.topics, each.shard
        wanted = shard.begin_again(found.end) if each.kind == "again" else []
        self._choose(each, found)
        news, rows = 0, each.range.rows
        if found.rows:  # most ranges of most reads are empty
            news, apart = queues.admit_pages(shard, found.rows, topics)
            others = map(OutboxRow.read, apart)
            news += queues.admit(shard, others, now, topics, looked.get(shard))
        match each.kind:
            case "tail":
                if shard.tail is not None:
                    shard.tail.note_read(found, rows, reading.now, new=news > 0)
            case "trial":
                pass  # `_choose` has moved its scan
            case "key":
                self._check_key(each, found, now)
            case "again":
                shard.again.note_range(found, rows)
                shard.finish_again(wanted, found)
            case "back":
                shard.back.note_read(found, rows, shard.sweep)
            case "sweep":
                self._note_sweep(each, found, reading, now)
        return news

    def _note_sweep(self, each: _Asked, found: RangeRead, reading: Reading, now: float) -> None:
        shard, clock = each.shard, reading.now
        if each.is_of_this_sweep:
            rows, seconds = each.range.rows, reading.seconds
            shard.sweep.note_read(found, rows, now, clock=clock, seconds=seconds)
            if not shard.sweep.is_running:
                shard.note_sweep()
        if shard.tail is None:
            shard.tail = Tail(clock - int(self._takeover * _MICROSECONDS))

    def _choose(self, each: _Asked, found: RangeRead) -> None:
        """Try the map with rows of topics that it works for no message of."""
        topics = self._state.topics
        if each.trial is not None:
            each.trial.scan(each.shard.number).note_range(found, each.range.rows)
            rows, topic = map(OutboxRow.read, found.rows), each.trial.topic
            each.trial.rows.update(row.id for row in rows if row.topic == topic)
        elif each.kind == "key" and topics.unmapped:
            for row in map(OutboxRow.read, found.rows):
                topics.try_with(row, max(1, self._rows // _TRIED))

    @property
    def _takeover(self) -> float:
        """Seconds that a take-over of a shard lasts; its new rows are behind the tail."""
        settings = self._settings
        return settings.lease + settings.grace + settings.renew

    def _check_key(self, each: _Asked, found: RangeRead, now: float) -> None:
        """See whether a row that was asked for by its key is there."""
        subject = each.subject
        if subject is None:
            self._check_probe(each, found)
            return
        hold = subject.holds[0]
        if found.end != RowPlace(hold.id.position, hold.id.event_id):
            self._state.retry_times.forget(subject, hold.id)
        elif subject.rows or any(
            self._state.topics.takes(OutboxRow.read(row), now) for row in found.rows
        ):
            subject.close()  # it is in memory, or waits for rows before it
        else:  # its topic is paused, or is tried with another row
            self._state.retry_times.put_off(subject, hold, now + _REFRESH)
            subject.close()

    def _check_probe(self, each: _Asked, found: RangeRead) -> None:
        """See whether the row to try a topic with is there, and was admitted."""
        state, row = self._state, each.row
        if row is None:
            return
        if found.end != RowPlace(row.position, row.event_id):
            state.topics.give_up_probe(row)
            state.resume_topics()
        elif row not in state.rows.known:
            state.topics.give_up_probe(row)  # it waits; the next scan finds another one

    # --- when to read again ------------------------------------------------------------

    def _next_wait(self, now: float, news: int) -> float:
        """Seconds until the next read; they double with each read that found nothing new."""
        longest, state = self._settings.longest_idle, self._state
        shards = state.shards.values()
        is_behind = any(
            s.sweep.is_running or s.back.is_running or s.wants or _is_behind(s.tail) for s in shards
        )
        is_behind |= state.is_empty and bool(state.rows.shares.full)  # the next read opens them
        if not state.is_empty:
            state.stalled_since = None
        elif state.stalled_since is None and not (news or is_behind):
            if self._settled != (settled := state.settled):  # else there were only vain tries
                self._settled, self._stall_began = settled, now
            state.stalled_since = self._stall_began
        if is_behind:
            return 0.0
        if news:
            self._idle = self._first_wait
            return self._idle
        idle, self._idle = self._idle, min(longest, self._idle * 2)
        if idle < longest:  # publishers that start together soon read at other times
            idle *= random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, guards nothing
        return min(idle, max(self._first_wait, state.seconds_left(now)))


def _shares(rows: int, **counts: int) -> dict[str, int]:
    """The rows of each range of a kind, if `counts` ranges of each kind have more to read."""
    total = sum(_WEIGHTS[kind] for kind, number in counts.items() if number)
    return {
        kind: max(1, rows * _WEIGHTS[kind] // max(1, total) // max(1, number))
        for kind, number in counts.items()
    }


def _sweeps(due: Sequence[Shard]) -> Sequence[Shard]:
    """The shards to sweep in this read: as many as are quick together, and one in any case."""
    found: list[Shard] = []
    seconds = 0.0
    for shard in due:
        seconds += shard.sweep.stretch.seconds
        if found and seconds > QUICK:
            break
        found.append(shard)
    return found


def _covers_tail(sweep: Sweep, tail: Tail) -> bool:
    """Whether the sweep reads the rows of the tail: it is there, or sees all in one read."""
    if not sweep.goes_to_the_end:
        return False
    is_whole = sweep.place == HEAD and sweep.is_short and not tail.is_behind
    return is_whole or tail.place <= sweep.place <= tail.home


def _is_at_rest(subject: Subject, hold: Hold) -> bool:
    """Whether a failed row still holds its subject back, and none of its rows is in memory."""
    is_first = subject.hold is hold and not subject.shard.is_lost
    return is_first and not (subject.busy or subject.rows)


def _is_behind(tail: Tail | None) -> bool:
    return tail is None or tail.is_behind


def _place_before(row: RowId) -> RowPlace:
    """The place right before a row."""
    number = UUID(row.event_id).int
    if not number:
        return RowPlace(row.position - 1, str(UUID(int=(1 << 128) - 1)))
    return RowPlace(row.position, str(UUID(int=number - 1)))


def _tell_pauses(text: str, topics: Collection[str]) -> None:
    """Log what an operator did to topics since the last look, in one line."""
    if not topics:
        return
    names = ", ".join(nsmallest(MAX_NAMED, topics))
    more = len(topics) - MAX_NAMED
    logger.info(text, names if more <= 0 else f"{names} and {more:,} more")
