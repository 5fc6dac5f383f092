"""Defects to plant in the publisher under test: the judge must find each of them."""

# ruff: noqa: SLF001 - a defect is planted inside

from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from math import isinf
from typing import Any, Final
from unittest.mock import PropertyMock, patch

from anyio import CancelScope
from msgspec import structs

from dsql_outbox.operations.replay_positions import Candidate, Placed, Positions
from dsql_outbox.outbox import Message
from dsql_outbox.outbox.failure import LASTING, FailureKind
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.leases.ownership import Ownership
from dsql_outbox.publisher.message_map import Mapper
from dsql_outbox.publisher.relay import reader
from dsql_outbox.publisher.relay.applier import Applier
from dsql_outbox.publisher.relay.memory import paging
from dsql_outbox.publisher.relay.memory.scans import Tail
from dsql_outbox.publisher.relay.memory.subjects import Hold, Shard, Subject
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.relay.outcomes import Outcomes
from dsql_outbox.publisher.relay.reader import Reader
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.settler import Settler
from dsql_outbox.publisher.relay.sink_call import SinkCall
from dsql_outbox.publisher.relay.sql_store import reading_of
from dsql_outbox.publisher.relay.store import PassedOver, Range, Reading, StoredFailure
from dsql_outbox.publisher.sinks.port import Delivered, NotAttempted, Outcome, Retry, Unavailable
from dsql_outbox.publisher.topic_settings import FailureRules
from dsql_outbox.schema import outbox_rows
from dsql_outbox.schema.outbox_rows import OutboxRow

from . import broker, outbox_model
from .named_defects import defects_of
from .outbox_model import Origin, Tables
from .page_defects import PAGE_DEFECTS
from .peer_defects import PEER_DEFECTS
from .relay_program import Parts, RelayProgram
from .statements import ModelStore
from .writers import Writers


def drop_a_delete() -> AbstractContextManager[Any]:
    """Every fifth DELETE does nothing, and reports success."""
    right, calls = Tables.delete, iter(range(1_000_000))

    def delete(tables: Tables, rows: Sequence[Any], origin: Origin) -> int:
        return len(rows) if next(calls) % 5 == 4 else right(tables, rows, origin)

    return patch.object(Tables, "delete", delete)


def reuse_a_key() -> AbstractContextManager[Any]:
    """A replay takes its position from the event alone, not from earlier replays."""

    def place(_: Positions, candidates: Sequence[Candidate]) -> list[Placed]:
        return [Placed(each, each.event_id.int, 0) for each in candidates]

    return patch.object(Positions, "place", place)


def renew_without_progress() -> AbstractContextManager[Any]:
    """The leases are renewed even if the relay is stuck."""
    return patch.object(Relay, "progresses", PropertyMock(return_value=True))


def count_an_outage() -> AbstractContextManager[Any]:
    """An error that is not the fault of the message counts as an attempt."""
    right = Outcomes.act_on

    def act_on(outcomes: Outcomes, subject: Any, outcome: Outcome) -> None:
        is_outage = isinstance(outcome, NotAttempted | Unavailable)
        right(outcomes, subject, Retry("an outage") if is_outage else outcome)

    return patch.object(Outcomes, "act_on", act_on)


def give_up_early(by: int = 1) -> AbstractContextManager[Any]:
    """A message is given up one attempt before its last."""
    right = FailureRules.consequence

    def consequence(rules: FailureRules, attempts: int, *, is_rejected: bool) -> Any:
        return right(rules, attempts + by, is_rejected=is_rejected)

    return patch.object(FailureRules, "consequence", consequence)


def give_up_late() -> AbstractContextManager[Any]:
    """A message is tried once more after its last attempt."""
    return give_up_early(-1)


@contextmanager
def pass_over_the_first() -> Generator[None]:
    """A row is admitted though the row of its subject before it was not seen."""
    with (
        patch.object(OutboxRow, "waits", PropertyMock(return_value=False)),
        patch.object(paging, "waits", lambda *_: False),
    ):
        yield


def trust_the_host() -> AbstractContextManager[Any]:
    """The relay takes its time from the host's clock, not from the database's."""
    right = RelayProgram.__init__

    def make(program: RelayProgram, parts: Parts) -> None:
        class HostTime:
            """The store, with the time of the host."""

            def __getattr__(self, name: str) -> Any:
                return getattr(parts.store, name)

            async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
                reading = await parts.store.read(ranges, passed)
                return reading._replace(now=round(parts.host_clock() * 1_000_000))

        right(program, replace(parts, store=HostTime()))  # type: ignore[arg-type]

    return patch.object(RelayProgram, "__init__", make)


def trust_the_order_of_rows() -> AbstractContextManager[Any]:
    """The rows of a read are taken in the order in which the driver has them."""

    def unsorted(number: int, found: Sequence[Any]) -> Reading:
        reading = reading_of(number, found)
        ranges = [each._replace(rows=each.rows[::-1]) for each in reading.ranges]
        return reading._replace(ranges=ranges)

    return patch.object(outbox_model, "reading_of", unsorted)


def end_at_a_refusal() -> AbstractContextManager[Any]:
    """A publisher ends with the error of a server that accepts no writes."""
    return patch.object(reader, "LASTING", LASTING | {FailureKind.READ_ONLY})


def ignore_the_epoch() -> AbstractContextManager[Any]:
    """A message is sent though it was read under an earlier lease of its shard."""

    def may_send(own: Ownership, shard: int, _epoch: int, now: float) -> bool:
        return shard in own.usable(now)

    return patch.object(Ownership, "may_send", may_send)


def keep_old_rows() -> AbstractContextManager[Any]:
    """Rows in memory stay when their shard was lost and taken again."""
    right = Reader._follow

    async def follow(reader: Reader) -> None:
        epochs = reader._leases.usable()
        for shard in reader._state.shards.values():
            shard.epoch = epochs.get(shard.number, shard.epoch)
        await right(reader)

    return patch.object(Reader, "_follow", follow)


def _forget_asked(kind: str) -> AbstractContextManager[Any]:
    right = Reader._take_back

    def take_back(reader: Reader, asked: Collection[Any], seconds: float = 0.0) -> None:
        right(reader, [each for each in asked if each.kind != kind], seconds)

    return patch.object(Reader, "_take_back", take_back)


def forget_due_retries() -> AbstractContextManager[Any]:
    """A read that fails forgets the retries that it asked for."""
    return _forget_asked("key")


def forget_passed_rows() -> AbstractContextManager[Any]:
    """A read that fails forgets the rows that were passed over and that it asked for."""
    return _forget_asked("again")


class _EveryLease:
    def has_lease(self, _shard: int, _epoch: int) -> bool:
        return True


def _without_lease(settle: str) -> AbstractContextManager[Any]:
    right: Callable[[Settler], Awaitable[None]] = getattr(Settler, settle)

    async def unguarded(settler: Settler) -> None:
        with patch.object(settler._outcomes, "_leases", _EveryLease()):
            await right(settler)

    return patch.object(Settler, settle, unguarded)


def bury_without_lease() -> AbstractContextManager[Any]:
    """A message is buried though its shard was lost."""
    return _without_lease("_bury")


def record_without_lease() -> AbstractContextManager[Any]:
    """A failure is recorded though its shard was lost."""
    return _without_lease("_record")


def _hold_differently(change: Callable[[float], float]) -> AbstractContextManager[Any]:
    right = Shard.restore_failure

    def restore_failure(shard: Shard, failure: StoredFailure, key: str, now: float) -> Hold:
        return right(shard, failure._replace(seconds=change(failure.seconds)), key, now)

    return patch.object(Shard, "restore_failure", restore_failure)


def forget_the_wait() -> AbstractContextManager[Any]:
    """A new owner of a shard tries the messages that failed again at once."""
    return _hold_differently(lambda seconds: seconds if isinf(seconds) else 0.0)


def try_blocked_rows() -> AbstractContextManager[Any]:
    """A new owner of a shard tries the messages that wait for an operator."""
    return _hold_differently(lambda seconds: 0.0 if isinf(seconds) else seconds)


def wait_as_at_first() -> AbstractContextManager[Any]:
    """Each wait of a message that fails is as long as the first one."""

    def backoff(rules: FailureRules, _attempts: int) -> float:
        return rules.backoff_base

    return patch.object(FailureRules, "backoff", backoff)


def never_cut_a_call() -> AbstractContextManager[Any]:
    """A call of the sink goes on when the lease of its shards ends."""

    @contextmanager
    def lease_scope(_leases: Leases, _epochs: Any) -> Generator[CancelScope]:
        yield CancelScope()

    return patch.object(Leases, "lease_scope", lease_scope)


def reuse_a_dedupe_id() -> AbstractContextManager[Any]:
    """A replay has the dedupe id of its event."""

    def dedupe_id(_shard: int, event_id: str, _replay: str | None) -> str:
        return event_id

    return patch.object(outbox_rows, "dedupe_id_of", dedupe_id)


def count_from_the_answer() -> AbstractContextManager[Any]:
    """A lease is counted from the answer to its renewal, not from the question."""
    right = RelayProgram.__init__

    def make(program: RelayProgram, parts: Parts) -> None:
        right(program, parts)
        own, lasts = program._leases._own, parts.settings.lease - parts.settings.margin

        def deadline(sent_at: float) -> float:
            del sent_at
            return parts.boot_clock() + lasts

        own._deadline = deadline  # type: ignore[method-assign]

    return patch.object(RelayProgram, "__init__", make)


def send_paused_topics() -> AbstractContextManager[Any]:
    """Messages of topics that an operator paused are sent."""
    never = PropertyMock(return_value={})
    return patch.object(TopicPauses, "by_operator", never, create=True)


def leave_at_the_end() -> AbstractContextManager[Any]:
    """What was acknowledged is not deleted at the end."""

    async def settle_all(_: Settler) -> None: ...

    return patch.object(Settler, "settle_all", settle_all)


def never_go_home() -> AbstractContextManager[Any]:
    """The tail reads on, and never again where transactions commit late."""

    def go_home(_: Tail, _now: float) -> None: ...

    return patch.object(Tail, "go_home", go_home)


def settle_behind_a_failure() -> AbstractContextManager[Any]:
    """What is behind a failed message of a run counts as delivered."""
    right = Outcomes.act_on

    def act_on(outcomes: Outcomes, subject: Subject, outcome: Outcome) -> None:
        if not isinstance(outcome, Delivered):
            while len(subject.busy) > 1:
                row = subject.busy.pop()
                outcomes._state.rows.move(row, "acknowledged")
                outcomes._state.changes.acknowledged[row.id] = row
        right(outcomes, subject, outcome)

    return patch.object(Outcomes, "act_on", act_on)


def _after_an_outcome(
    plant: Callable[[Outcomes, Subject, Outcome, list[OutboxRow]], None],
) -> AbstractContextManager[Any]:
    """Plant something for the rows of a run behind the one that the outcome is about."""
    right = Outcomes.act_on

    def act_on(outcomes: Outcomes, subject: Subject, outcome: Outcome) -> None:
        behind = subject.busy[1:]
        right(outcomes, subject, outcome)
        plant(outcomes, subject, outcome, behind)

    return patch.object(Outcomes, "act_on", act_on)


def count_the_unattempted() -> AbstractContextManager[Any]:
    """A failure counts for each message of the run behind it."""

    def plant(
        outcomes: Outcomes, subject: Subject, outcome: Outcome, behind: list[OutboxRow]
    ) -> None:
        if isinstance(outcome, Retry) and not subject.shard.is_lost:
            for row in behind:
                outcomes._state.changes.record(subject, Hold(row.id, 1, 0.0), "no", 1.0)

    return _after_an_outcome(plant)


def send_two_runs_at_once() -> AbstractContextManager[Any]:
    """A subject goes on as soon as the first message of its run is delivered."""

    def plant(
        outcomes: Outcomes, subject: Subject, _outcome: Outcome, behind: list[OutboxRow]
    ) -> None:
        if behind and subject.busy:
            queues = outcomes._state.queues
            queues.requeue(subject, 0)
            queues._make_ready(subject)

    return _after_an_outcome(plant)


def store_behind_a_refusal() -> AbstractContextManager[Any]:
    """A run goes on at the broker after a message that it does not take."""
    return patch.object(broker, "_goes_on", lambda _: True)


def send_replays_in_runs() -> AbstractContextManager[Any]:
    """A run has what waits, also replays."""
    right = Subject.begin

    def begin(subject: Subject, longest: int) -> None:
        for row in subject.rows:
            row.is_replay = False
        right(subject, longest)

    return patch.object(Subject, "begin", begin)


def open_without_waiting() -> AbstractContextManager[Any]:
    """A target runs though transactions are open that do not know it."""

    def when_ended(_: Writers, act: Callable[[], None]) -> None:
        act()

    return patch.object(Writers, "when_ended", when_ended)


def open_with_what_came_before() -> AbstractContextManager[Any]:
    """The messages that were inserted while a target opened are relayed."""
    return patch.object(Tables, "discard", lambda *_: None)


def discard_by_the_clock() -> AbstractContextManager[Any]:
    """Of the messages that were inserted while a target opened, those after the clock stay."""
    right = Tables._remove

    def remove(tables: Tables, row: Any) -> bool:
        return row.position <= tables.clock() and right(tables, row)

    def discard(tables: Tables, target: int) -> None:
        with patch.object(Tables, "_remove", remove):
            right_discard(tables, target)

    right_discard = Tables.discard
    return patch.object(Tables, "discard", discard)


@contextmanager
def delete_before_the_function() -> Generator[None]:
    """The rows of a model are deleted before its function, in a transaction of their own."""
    right, right_have, gone = ModelStore._transaction, Tables.have, set[Any]()

    async def transaction(store: ModelStore, rows: Sequence[Any], calls: Any, limit: float) -> bool:
        await store.delete(rows)
        gone.update(rows)
        return await right(store, rows, calls, limit)

    def have(tables: Tables, rows: Sequence[Any]) -> bool:
        return gone.issuperset(rows) or right_have(tables, rows)

    # Both for all of the block: patches of tasks that overlap would not be taken back.
    with patch.object(ModelStore, "_transaction", transaction), patch.object(Tables, "have", have):
        yield


def delete_what_failed() -> AbstractContextManager[Any]:
    """A message whose function failed counts as applied."""

    def settle(applier: Applier, subject: Any, _row: object, _: object) -> None:
        applier._settle(subject)

    return patch.object(Applier, "_settle_or_fail", settle)


def keep_the_suspect() -> AbstractContextManager[Any]:
    """The message that failed a batch of a model stays in the next ones."""
    right = Applier._batch

    def batch(applier: Applier) -> Any:
        with patch.object(applier, "_suspects", ()):
            return right(applier)

    return patch.object(Applier, "_batch", batch)


def pause_for_all_targets() -> AbstractContextManager[Any]:
    """A topic that is paused for one target is paused for each."""
    right = Tables.paused_topics

    def paused_topics(tables: Tables, _target: int) -> dict[str, str]:
        return {
            topic: why for each in [*tables.paused] for topic, why in right(tables, each).items()
        }

    return patch.object(Tables, "paused_topics", paused_topics)


def send_what_is_left_out() -> AbstractContextManager[Any]:
    """A message is sent as it is stored if the map leaves it out."""
    right = Mapper.map

    def map_(mapper: Mapper, message: Message) -> Any:
        made = right(mapper, structs.replace(message, headers=message.headers.copy()))
        return message if made is None else made

    return patch.object(Mapper, "map", map_)


def settle_what_is_left_out_early() -> AbstractContextManager[Any]:
    """A message that the map leaves out is settled though the one before it was not delivered."""
    right = SinkCall._act_on

    def act_on(call: Any, index: int, subject: Subject, outcome: Outcome) -> None:
        if not isinstance(outcome, Delivered):
            for _ in range(call._skipped.pop(index, 0)):
                row = subject.busy.pop(1)
                call._outcomes._state.rows.move(row, "acknowledged")
                call._outcomes._state.changes.acknowledged[row.id] = row
        right(call, index, subject, outcome)

    return patch.object(SinkCall, "_act_on", act_on)


def keep_what_is_left_out() -> AbstractContextManager[Any]:
    """A message that the map leaves out behind others is not settled."""
    right = SinkCall._act_on

    def act_on(call: Any, index: int, subject: Subject, outcome: Outcome) -> None:
        call._skipped.clear()
        right(call, index, subject, outcome)

    return patch.object(SinkCall, "_act_on", act_on)


def count_a_broken_map() -> AbstractContextManager[Any]:
    """An error of the map counts though it has worked for no message of the topic."""
    return patch.object(Mapper, "works", lambda *_: True)


def send_behind_an_error_of_the_map() -> AbstractContextManager[Any]:
    """A run goes on behind a message for which the map fails, which waits."""
    right = Mapper.map

    def map_(mapper: Mapper, message: Message) -> Any:
        made = right(mapper, message)
        return None if isinstance(made, Retry) else made

    return patch.object(Mapper, "map", map_)


DEFECTS: Final = defects_of(__name__) | PEER_DEFECTS | PAGE_DEFECTS
