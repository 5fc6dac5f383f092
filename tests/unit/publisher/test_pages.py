"""Pages: which rows are in one, and how each leaves it, whatever is answered and in which order."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from random import Random
from threading import Thread
from typing import Final

import anyio
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import (
    MemoryOutbox,
    OneShard,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.settings import MAX_TRANSACTION_ROWS
from dsql_outbox.publisher import Answer
from dsql_outbox.publisher.relay.memory import scans, shares
from dsql_outbox.publisher.relay.memory.pages import Page, Part
from dsql_outbox.publisher.relay.memory.paging import LONGEST, MOST, pages_of
from dsql_outbox.publisher.relay.memory.queues import Queues
from dsql_outbox.publisher.relay.memory.rows import Rows
from dsql_outbox.publisher.relay.memory.subjects import Shard, Subject
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.relay.outcomes import Outcomes
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.settler import Settler
from dsql_outbox.publisher.relay.sink_call import SinkCall
from dsql_outbox.publisher.relay.state import RelayState
from dsql_outbox.publisher.sinks import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId

LARGE: Final = "x" * 600_000


def shard() -> Shard:
    return Shard(0, 1)


def paged(
    rows: Sequence[OutboxRow],
    *,
    to: Shard | None = None,
    memory: Rows | None = None,
    keys: Collection[str] = (),
    paused: Collection[str] = (),
) -> set[int]:
    """The positions of the rows that come into pages."""
    raw = [each.raw for each in rows]
    made, others = pages_of(to or shard(), raw, memory or Rows(), keys, paused.__contains__)
    found = {at.position for page in made for at in page.ids}
    assert sorted([*found, *(each[2] for each in others)]) == [each.position for each in rows]
    return found


PLAIN: Final = [row(f"plain{at}", at) for at in range(1, 6)]

IN_PAGES: Final[Mapping[str, Sequence[OutboxRow]]] = {
    "alone": [row("x", 10)],
    "a run": chain("x", [10, 11, 12]),
    "the longest run": chain("x", [*range(10, 10 + LONGEST)]),
    "a large row": [row("x", 10, payload=LARGE)],
    "a row that names a later one": [row("x", 10, previous=10, waits=True)],
    "a row that names one that is gone": [row("x", 10, previous=7, waits=False)],
}

APART: Final[Mapping[str, Sequence[OutboxRow]]] = {
    "a replay": [row("x", 10, headers='{"replay":"1"}')],
    "a run with a replay": [row("x", 10), row("x", 11, headers='{"replay":"1"}')],
    "no payload": [row("x", 10, payload=None)],  # type: ignore[arg-type]
    "a run without a payload": [row("x", 10), row("x", 11, payload=None)],  # type: ignore[arg-type]
    "a row that waits": [row("x", 10, previous=7, waits=True)],
    "a run with a gap": [row("x", 10), row("x", 12, previous=11, waits=True)],
    "two topics": [row("x", 10), row("x", 11, previous=10, topic="other")],
    "too long a run": chain("x", [*range(10, 11 + LONGEST)]),
    "too large a run": [row("x", 10, payload=LARGE), row("x", 11, previous=10, payload=LARGE)],
}


@pytest.mark.parametrize("rows", IN_PAGES.values(), ids=IN_PAGES)
def test_whole_healthy_runs_are_in_pages(rows: Sequence[OutboxRow]) -> None:
    assert paged([*PLAIN, *rows]) == {each.position for each in [*PLAIN, *rows]}


@pytest.mark.parametrize("rows", APART.values(), ids=APART)
def test_a_subject_with_another_row_is_in_none(rows: Sequence[OutboxRow]) -> None:
    assert paged([*PLAIN, *rows]) == {each.position for each in PLAIN}


def test_a_subject_that_has_rows_or_failures_or_is_paused_is_in_none() -> None:
    rows, plain = [*PLAIN, *chain("x", [10, 11])], {each.position for each in PLAIN}
    key = rows[-1].key
    known = shard()
    known.subject(key, "Car", "x")
    assert paged(rows, to=known) == plain
    assert paged(rows, keys={key}) == plain
    others = [row(f"p{at}", at, topic="p") for at in range(10, 20)]
    assert paged([*PLAIN, *others], paused={"p"}) == plain


def test_a_row_follows_one_that_was_delivered_a_moment_ago() -> None:
    memory = Rows()
    memory.know(row("x", 7))
    rows = [*PLAIN, row("x", 10, previous=7, waits=True)]
    assert paged(rows, memory=memory) == {each.position for each in rows}


@pytest.mark.parametrize("topics", [1, 2, 300])
def test_a_few_rows_make_no_page(topics: int) -> None:
    rows = [row(str(at), at, topic=f"t{at % topics}") for at in range(1, 3 * topics + 1)]
    assert paged(rows) == set()
    assert len(paged([*rows, row("x", 10_000, topic="t0")])) == Page.LEAST


def test_pages_are_limited_in_rows_and_bytes() -> None:
    rows = [row(str(at), at) for at in range(1, 3 * MOST)]
    large = [row(f"l{at}", 1_000 + at, payload="x" * 200_000) for at in range(20)]
    raw = [each.raw for each in [*rows, *large]]
    made, _ = pages_of(shard(), raw, Rows(), (), {*()}.__contains__)
    assert all(Page.LEAST <= len(page) <= MOST + LONGEST for page in made)
    assert all(sum(page.sizes) <= 3 << 19 for page in made)


def admitted(rows: Sequence[OutboxRow]) -> Queues:
    queues = Queues(Rows())
    found, others = queues.admit_pages(one := shard(), [each.raw for each in rows], TopicPauses())
    assert (found, others) == (len(rows), [])
    queues.take_out_of(one, "Car/nobody")
    return queues


def taken(queues: Queues, most: int) -> list[int]:
    each = queues.take(most, free=10_000, of=100_000, may_send=lambda _: 256)
    return [
        row.position
        for one in each
        for row in (one.ids if isinstance(one, Page) else [busy.id for busy in one.busy])
    ]


@pytest.mark.parametrize("most", [1, 2, Page.LEAST, 50])
def test_rows_of_a_page_are_sent_in_turn_however_few_may_be(most: int) -> None:
    queues = admitted([row(str(at), at) for at in range(1, 101)])
    found: list[int] = []
    while some := taken(queues, most):
        assert len(some) <= most
        found += some
    assert found == [*range(1, 101)]


class Told:
    """A sink that takes runs, and gives other answers for some messages at their first attempt."""

    system = "told"
    keeps_prefix = True

    def __init__(self, outcomes: Mapping[tuple[str, int], Outcome | None], seed: int) -> None:
        self._outcomes = dict(outcomes)
        self._random = Random(seed)
        self.delivered: dict[str, list[int]] = {}
        self.attempts: dict[tuple[str, int], list[int]] = {}

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """See `Sink.publish`: the answers of different keys come in any order, over some time."""
        waiting: dict[str, list[int]] = {}
        for index, message in enumerate(messages):
            waiting.setdefault(message.key, []).append(index)
        while waiting:
            key = self._random.choice([*waiting])
            index = waiting[key].pop(0)
            if self._random.random() < 0.3:
                await anyio.sleep(0.001)
            place = key, int(messages[index].headers["position"])
            self.attempts.setdefault(place, []).append(messages[index].attempt)
            outcome = self._outcomes.pop(place, Delivered())
            if isinstance(outcome, Delivered):
                self.delivered.setdefault(key, []).append(place[1])
            if outcome is not None:
                answer(index, outcome)
            if not isinstance(outcome, Delivered) or not waiting[key]:
                del waiting[key]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "outcome", [Retry("no"), Unavailable("no"), NotAttempted(), None], ids=repr
)
def test_other_answers_concern_their_run_alone(outcome: Outcome | None, seed: int) -> None:
    store = MemoryOutbox()
    subjects = {f"Car/{name}": [100 * name + at for at in range(1, 4)] for name in range(1, 9)}
    store.insert([each for key in subjects for each in chain(key[4:], subjects[key])])
    told = {("Car/2", 202): outcome, ("Car/5", 501): outcome, ("Car/7", 703): outcome}
    sink = Told(told, seed)
    in_virtual_time(relay_until(store, sink, lambda: not store.rows))
    assert sink.delivered == subjects
    again = [1, 2] if isinstance(outcome, Retry) else [1, 1]
    for place, attempts in sink.attempts.items():
        assert attempts == (again if place in told else [1])


def test_a_message_that_is_refused_alone_is_given_up_and_its_run_goes_on() -> None:
    store = MemoryOutbox()
    store.insert([each for name in "abcde" for each in chain(name, [ord(name), 500 + ord(name)])])
    sink = Told({("Car/c", ord("c")): Rejected("no")}, 1)
    in_virtual_time(relay_until(store, sink, lambda: not store.rows))
    assert [letter.row.position for letter in store.letters] == [ord("c")]
    assert sink.delivered.pop("Car/c") == [500 + ord("c")]
    assert all(len(found) == 2 for found in sink.delivered.values())


class Call:
    """One call of a sink with a page of rows, without the loop of a sender."""

    def __init__(self, rows: Sequence[OutboxRow]) -> None:
        self.state = RelayState(lambda: 1.0)
        self.outcomes = Outcomes(self.state, TunedSettings(), OneShard())  # type: ignore[arg-type]
        self.shard = self.state.shards[0] = shard()
        self.state.queues.admit_pages(self.shard, [each.raw for each in rows], self.state.topics)
        owners = self.state.queues.take(500, free=9_999, of=100_000, may_send=lambda _: 256)
        (self.page,) = (each for each in owners if isinstance(each, Page))
        self.call = SinkCall(owners, self.outcomes, self.note_answer)
        self.messages = self.call.prepare_messages(lambda: False)

    def note_answer(self, *, first: bool) -> None:
        """As the sender has one."""

    def ready(self) -> list[int]:
        """Take the runs of subjects that can be sent. Returns their first positions."""
        queues = self.state.queues
        owners = queues.take(500, free=9_999, of=100_000, may_send=lambda _: 256)
        return [each.busy_row.position for each in owners if isinstance(each, Subject)]


@pytest.mark.anyio
async def test_a_run_that_leaves_its_page_before_the_call_begins_is_sent_by_that_call() -> None:
    """Between the choice of rows and the call, a read may bring a later row of a subject."""
    state = RelayState(lambda: 1.0)
    outcomes = Outcomes(state, TunedSettings(), OneShard())  # type: ignore[arg-type]
    one = state.shards[0] = shard()
    rows = [row(name, at) for at, name in enumerate("abcdef", 1)]
    state.queues.admit_pages(one, [each.raw for each in rows], state.topics)
    owners = state.queues.take(500, free=9_999, of=100_000, may_send=lambda _: 256)
    state.queues.admit(one, [row("c", 9, previous=3)], 1.0, state.topics, None)
    call = SinkCall(owners, outcomes, lambda *, first: None)  # noqa: ARG005 - the sender's
    assert [each.key[4:] for each in call.prepare_messages(lambda: False)] == [*"abdefc"]
    for index in range(6):
        call.answers(index, Delivered())
    call.end()
    assert state.delivered == 6
    (later,) = state.queues.take(500, free=9_999, of=100_000, may_send=lambda _: 256)
    assert isinstance(later, Subject)
    assert [each.position for each in later.busy] == [9]


def test_a_full_memory_gives_up_the_last_rows_of_pages_and_reads_them_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "MAX_ROWS", 300)
    state = RelayState(lambda: 1.0)
    one = state.shards[0] = shard()
    rows = [row(f"s{at}", at) for at in range(1, 401)]
    state.queues.admit_pages(one, [each.raw for each in rows], state.topics)
    for use in state.rows.shares.uses.values():
        use.credit = 1 / 4
    state.rows.shares.review(1.0)
    state.queues.make_room([one])
    left = sorted(at.position for page in {*state.queues.pages[one].values()} for at in page.ids)
    assert left == [*range(1, len(left) + 1)]
    assert 0 < len(left) < 300
    assert state.rows.shares.rows == len(left)
    assert one.full_topics["t"].position == len(left) + 1


@pytest.mark.anyio
@pytest.mark.parametrize("has_pages", [True, False])
async def test_a_key_that_is_in_two_shards_is_in_a_call_once(has_pages: bool) -> None:
    """Anybody with a writer's rights can store such rows; one sink takes two runs for one."""
    state = RelayState(lambda: 1.0)
    state.queues.has_pages = has_pages
    outcomes = Outcomes(state, TunedSettings(), OneShard())  # type: ignore[arg-type]
    for number, names in enumerate(["abcdef", "fghija"]):
        one = state.shards[number] = Shard(number, 1)
        raw = [(0, number, *row(name, at).raw[2:]) for at, name in enumerate(names, 1)]
        _, others = state.queues.admit_pages(one, raw, state.topics)
        state.queues.admit(one, map(OutboxRow.read, others), 1.0, state.topics, None)
    sent: list[list[str]] = []
    while owners := state.queues.take(500, free=9_999, of=100_000, may_send=lambda _: 256):
        call = SinkCall(owners, outcomes, lambda *, first: None)  # noqa: ARG005 - the sender's
        sent.append([message.key[4:] for message in call.prepare_messages(lambda: False)])
        for index in range(len(sent[-1])):
            call.answers(index, Delivered())
        call.end()
        state.queues.end_rests(1.0)
    assert [sorted(keys) for keys in sent] == [[*"abcdefghij"], ["a", "f"]]
    assert (state.delivered, state.rows.in_flight) == (12, 0)


@pytest.mark.anyio
async def test_a_call_that_hangs_keeps_no_row_that_the_broker_has() -> None:
    one = Call([row(str(at), at) for at in range(1, 9)])
    for index in range(7):
        one.call.answers(index, Delivered())
    one.state.queues.take_out(one.page, 7)
    await asyncio.sleep(0)
    assert one.state.delivered == 7
    assert not any(one.page.rows)
    one.call.end()


@pytest.mark.anyio
async def test_an_answer_of_another_thread_fails_there_and_the_message_is_sent_again() -> None:
    one = Call([row(str(at), at) for at in range(1, 9)])
    errors: list[Exception] = []

    def answer() -> None:
        try:
            one.call.answers(0, Delivered())
        except RuntimeError as error:
            errors.append(error)

    thread = Thread(target=answer)
    thread.start()
    thread.join()
    one.call.end()
    assert len(errors) == 1
    assert one.state.rows.in_flight == 0
    assert one.state.delivered == 0


@pytest.mark.anyio
async def test_a_run_leaves_its_page_with_a_later_row_that_is_no_message() -> None:
    """What is before that one is sent once, by its subject, and not by the page, too."""
    rows = [*chain("x", [1, 2]), *(row(str(at), at) for at in range(3, 9))]
    rows[1].headers = "no JSON"
    one = Call(rows)
    assert [message.key[4:] for message in one.messages] == [*"345678", "x"]
    for index in range(len(one.messages)):
        one.call.answers(index, Delivered())
    one.call.end()
    assert one.state.delivered == 7


@pytest.mark.anyio
async def test_a_subject_goes_on_behind_the_last_row_of_its_run_in_a_page() -> None:
    one = Call([*chain("x", [1, 2, 3]), *(row(str(at), at) for at in range(4, 9))])
    one.call.answers(0, Delivered())
    await asyncio.sleep(0)
    later = row("x", 20, previous=3)
    one.state.queues.admit(one.shard, [later], 1.0, one.state.topics, None)
    assert one.ready() == []
    for index in (1, 2):
        one.call.answers(index, Delivered())
    assert one.ready() == [20]
    one.call.end()


@pytest.mark.anyio
async def test_a_later_row_of_a_subject_waits_for_those_in_the_page() -> None:
    rows = [row(str(at), at) for at in range(1, 9)]
    one = Call(rows)
    later = row("3", 20, previous=3)
    one.call.answers(1, Delivered())  # of subject 2, in this turn: the books do not know it yet
    for each in (later, row("2", 21, previous=2)):
        one.state.queues.admit(one.shard, [each], 1.0, one.state.topics, None)
    assert one.ready() == [21]
    await asyncio.sleep(0)
    one.call.answers(2, Delivered())
    assert one.ready() == [20]
    one.call.end()
    assert one.state.delivered == 2


@pytest.mark.anyio
async def test_a_topic_that_is_refused_behind_a_delivered_message_of_one_turn_is_paused() -> None:
    one = Call([row(str(at), at) for at in range(1, 9)])
    one.call.answers(0, Delivered())
    one.call.answers(1, Unavailable("no"))
    await asyncio.sleep(0)
    assert one.state.topics.is_paused("t")
    one.call.answers(2, Delivered())
    await asyncio.sleep(0)
    assert not one.state.topics.is_paused("t")
    one.call.end()


class Hanging:
    """A sink that answers at once, and whose calls end later."""

    system = "hanging"

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """See `Sink.publish`."""
        for index in range(len(messages)):
            answer(index, Delivered())
        await anyio.sleep(1)


class Failing(Outcomes):
    """Outcomes whose books are broken."""

    def deliver_part(self, part: Part) -> None:
        """See `Outcomes.deliver_part`."""
        raise AssertionError(f"the books are broken for {len(part)} rows")


def test_an_error_of_the_books_ends_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsql_outbox.publisher.relay.relay.Outcomes", Failing)
    store, sink = MemoryOutbox(), Hanging()
    store.insert([row(str(at), at) for at in range(1, 9)])

    async def run() -> None:
        relay = Relay(store, sink, TunedSettings(), OneShard())  # type: ignore[arg-type]
        with anyio.fail_after(60):
            await relay.run()

    with pytest.raises(AssertionError, match="the books are broken"):
        in_virtual_time(run())


class Lapsing(OneShard):
    """The lease of a shard that allows no message for longer than the tail looks back."""

    def may_send(self, _shard: int, _epoch: int) -> bool:
        """See `Leases`."""
        return not 100 < asyncio.get_running_loop().time() < 103


def test_rows_whose_lease_did_not_allow_them_are_sent_when_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.support.publisher.virtual_relay.OneShard", Lapsing)
    monkeypatch.setattr(scans, "_REST", 30.0)
    store, sink = MemoryOutbox(), Told({}, 1)
    subjects = {f"Car/{at}": [100_000_000 + at, 100_005_000 + at] for at in range(1, 101)}

    async def write(_relay: Relay) -> None:
        await anyio.sleep(100.01)
        store.insert([each for key in subjects for each in chain(key[4:], subjects[key])])

    def done() -> bool:
        return bool(sink.delivered) and not store.rows

    seconds = in_virtual_time(relay_until(store, sink, done, beside=write))
    assert sink.delivered == subjects
    assert 103 < seconds < 103.5  # a scan returns to them; the next sweep would come later


class Deletes:
    """A store that takes deletes."""

    def __init__(self) -> None:
        self.batches: list[set[RowId]] = []

    async def delete(self, rows: Sequence[RowId]) -> int:
        """See `Store.delete`."""
        self.batches.append(set(rows))
        return len(rows)


@pytest.mark.anyio
@pytest.mark.parametrize("most_are_in_pages", [True, False])
async def test_rows_in_pages_and_others_are_deleted_beside_a_backlog_of_the_other_kind(
    most_are_in_pages: bool,
) -> None:
    one = Call([row(str(at), at) for at in range(1, 9)])
    state, queues, outcomes = one.state, one.state.queues, one.outcomes
    if most_are_in_pages:
        outcomes.act_on(outcomes.take_out(one.page, 7), Delivered())
    else:
        outcomes.deliver_part(one.page.part)
    for first in range(1_000, 5_000, 100):
        found = [row(str(at), at).raw for at in range(first, first + 100)]
        queues.admit_pages(one.shard, found, state.topics)
        for page in queues.take(100, free=99_999, of=999_999, may_send=lambda _: 256):
            assert isinstance(page, Page)
            if most_are_in_pages:
                outcomes.deliver_part(page.part)
            else:
                for at in range(len(page)):
                    outcomes.act_on(outcomes.take_out(page, at), Delivered())
    store = Deletes()
    settler = Settler(state, store, TunedSettings(), outcomes)  # type: ignore[arg-type]
    await settler.settle()
    assert row("8", 8).id in store.batches[0]
    assert len(store.batches[0]) <= MAX_TRANSACTION_ROWS
    while not settler.is_done:
        await settler.settle()
    assert sum(map(len, store.batches)) == state.deleted == state.delivered
