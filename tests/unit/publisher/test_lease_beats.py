"""The statements of a beat: which are sent, in which order, and what is believed of them."""

import math
from collections.abc import Callable, Mapping

import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.leases.ownership import Ownership
from dsql_outbox.publisher.leases.protocol import Beats, Renewal
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.liveness import Lease, Peer, Snapshot

pytestmark = pytest.mark.anyio

SETTINGS = TunedSettings(lease=10, broker_patience=30, drain=20)
FREE = -math.inf


def own_with(*shards: int) -> Ownership:
    own = Ownership("me", SETTINGS)
    own.note_taken(dict.fromkeys(shards, 6), shards, 0.0)
    return own


def mine(*shards: int) -> list[Lease]:
    return [Lease(shard, "me", 7, 9) for shard in shards]


class Scripted:
    """Tables that answer a look with `seen`, and note each statement; `broken` ones fail."""

    def __init__(self, seen: Snapshot, *broken: str) -> None:
        self.seen = seen
        self.broken = set(broken)
        self.has_one_form = True
        self.statements: list[str] = []
        self.renewed: set[int] = set()
        self.taken: set[int] | None = None
        self.on_way: Callable[[], None] = lambda: None

    def _note(self, name: str) -> None:
        self.statements.append(name)
        self.on_way()
        if name in self.broken:
            raise TimeoutError(name)

    async def announce(self, owner: str, *, waits: bool) -> None:
        assert owner == "me"
        self._note("wait" if waits else "announce")

    async def withdraw(self, owner: str) -> None:
        assert owner == "me"
        self._note("withdraw")

    async def prune(self) -> None:
        self._note("prune")

    async def look(self) -> Snapshot:
        self._note("look")
        return self.seen

    async def renew(self, owner: str, epochs: Mapping[int, int]) -> set[int]:
        assert owner == "me"
        self._note("renew")
        self.renewed = set(epochs)
        return self.renewed

    async def renew_and_look(self, owner: str, epochs: Mapping[int, int]) -> Renewal | None:
        self._note("renew_and_look")
        if not self.has_one_form:
            return None
        self.renewed = {lease.shard for lease in self.seen.leases if lease.owner == owner}
        self.renewed &= set(epochs)
        return Renewal(self.renewed, self.seen)

    async def release(self, owner: str, epochs: Mapping[int, int]) -> set[int]:
        assert owner == "me"
        self._note("release")
        return set(epochs)

    async def take(
        self, owner: str, epochs: Mapping[int, int], ended: Mapping[int, float]
    ) -> set[int]:
        assert (owner, ended) == ("me", {})
        self._note("take")
        return set(epochs) if self.taken is None else self.taken

    def drop(self) -> None: ...


class Relay:
    """What a relay answers to its leases, and the beats of its publisher."""

    def __init__(self, own: Ownership, table: Scripted) -> None:
        self.busy: set[int] = set()
        self.progresses = True
        self.now = 0.0
        self._table = table
        self._beats = Beats(
            own,
            table,
            lambda: self.now,
            busy=lambda: self.busy,
            progresses=lambda: self.progresses,
        )

    async def beat(self) -> list[str]:
        """Do one beat; returns its statements."""
        self._table.statements.clear()
        await self._beats.beat()
        return self._table.statements.copy()


async def test_what_was_not_answered_is_not_believed() -> None:
    own = own_with(0, 1)
    relay = Relay(own, table := Scripted(Snapshot(mine(0, 1), [Peer("you", 2, 0, 10)]), "release"))
    own.plan(Snapshot(mine(0, 1), [Peer("you", 1, 1, 10)]), 1)
    relay.now = 5.0
    with pytest.raises(TimeoutError):
        await relay.beat()
    assert own.shards == {0, 1}
    assert set(own.usable(13.9)) == table.renewed, "renewed at 5"
    assert len(own.plan(table.seen, 6).release) == 1


async def test_without_progress_it_does_not_announce_itself() -> None:
    """Others would leave a share to a publisher that cannot send."""
    relay = Relay(own_with(0), Scripted(Snapshot(mine(0), [])))
    relay.progresses = False
    assert await relay.beat() == ["withdraw", "look"]
    relay.progresses = True
    assert await relay.beat() == ["renew_and_look"]


async def test_while_its_broker_fails_it_announces_that_it_waits_and_withdraws_at_its_end() -> None:
    own = own_with(0)
    relay = Relay(own, Scripted(Snapshot(mine(0), [])))
    own.note_sink_failure(0.0)
    assert await relay.beat() == ["wait", "look", "renew"]
    own.note_sink_answer()
    assert await relay.beat() == ["renew_and_look"]
    own.note_sink_failure(1.0)
    own.stop(1.0)
    assert await relay.beat() == ["withdraw", "look", "release"]


async def test_a_beat_that_changes_nothing_is_one_statement() -> None:
    own = own_with(0)
    relay = Relay(own, Scripted(Snapshot(mine(0), [])))
    assert await relay.beat() == ["look", "renew", "announce"]
    relay.now = 3.0
    assert await relay.beat() == ["renew_and_look"]
    assert own.deadline(0, 7) == 12


@pytest.mark.parametrize("has_one_form", [True, False])
async def test_the_time_that_a_statement_takes_is_not_added_to_the_lease(
    has_one_form: bool,
) -> None:
    own = own_with(0)
    leases = [*mine(0), Lease(1, None, 3, FREE)]
    relay = Relay(own, table := Scripted(Snapshot(mine(0), [])))
    await relay.beat()
    table.has_one_form = has_one_form
    table.seen = Snapshot(leases, [])
    began: dict[str, float] = {}

    def go_on() -> None:
        began[table.statements[-1]] = relay.now
        relay.now += 1.0

    table.on_way = go_on
    await relay.beat()
    renewal = "renew_and_look" if has_one_form else "renew"
    assert own.deadline(0, 7) == began[renewal] + 9
    assert own.deadline(1, 4) == began["take"] + 9


@pytest.mark.parametrize(("has_one_form", "next_one"), [(False, "announce"), (True, "take")])
async def test_a_renewal_gives_the_calls_on_their_way_more_time_before_the_next_statement(
    has_one_form: bool, next_one: str
) -> None:
    """It may take `renew` seconds, and a call would be cut under a lease that lasts."""
    now = 0.0
    table = Scripted(Snapshot([Lease(0, None, 6, FREE)], []))
    leases = Leases(
        Database("postgresql://nowhere"),
        SETTINGS,
        lambda *_: None,
        busy=tuple,
        progresses=lambda: True,
        clock=lambda: now,
        table=table,
        owner="me",
    )
    await leases.open()
    table.has_one_form = has_one_form
    table.seen = Snapshot([*mine(0), Lease(1, None, 3, FREE)], [])
    found: dict[str, float] = {}
    now = 3.0
    with leases.lease_scope(lambda: {0: 7}) as call:
        before = call.deadline
        table.on_way = lambda: found.update({table.statements[-1]: call.deadline - before})
        await leases._beat()
    await leases.close()
    assert found[next_one] == pytest.approx(3, abs=0.5)


async def test_what_changes_follows_the_statement() -> None:
    own = own_with(0, 1)
    old = Peer("old", 0, 101, 10)
    relay = Relay(own, table := Scripted(Snapshot(mine(0, 1), [])))
    await relay.beat()
    table.seen = Snapshot([*mine(0, 1), Lease(2, None, 4, FREE)], [old])
    assert await relay.beat() == ["renew_and_look", "take", "prune"]
    leases = [*mine(0, 1), Lease(2, "me", 5, 9)]
    table.seen = Snapshot(leases, [Peer("a", 3, 3, 10), Peer("b", 3, 3, 10)])
    await relay.beat()
    table.seen = Snapshot(leases, [Peer("a", 6, 0, 10), Peer("b", 6, 0, 10)])
    assert await relay.beat() == ["renew_and_look", "release"]


async def test_who_lost_a_race_for_a_lease_looks_again_at_once() -> None:
    """It has room for another one, and the others may want that too."""
    own = own_with(0)
    table = Scripted(Snapshot([*mine(0), Lease(1, None, 3, FREE), Lease(2, None, 3, FREE)], []))
    beats = Beats(own, table, lambda: 0.0, busy=set, progresses=lambda: True)
    assert await beats.beat() == SETTINGS.renew
    own.note_release([1, 2])
    table.taken = {1}
    assert await beats.beat() == pytest.approx(SETTINGS.renew / 20)


async def test_a_lease_that_ended_before_its_renewal_is_not_taken_again() -> None:
    """The statement shows it as it was before."""
    own = own_with(0)
    ended = Lease(0, "me", 7, -60)
    relay = Relay(own, Scripted(Snapshot([ended, Lease(1, "you", 3, 9)], [])))
    await relay.beat()
    assert await relay.beat() == ["renew_and_look"]
    assert own.usable(0) == {0: 7}


@pytest.mark.parametrize("broken", ["renew_and_look", "take"])
async def test_who_got_no_answer_says_nothing_before_it_got_one(broken: str) -> None:
    """Else it could keep leases, or a share, without ever getting an answer."""
    relay = Relay(own_with(0), table := Scripted(Snapshot(mine(0), [])))
    await relay.beat()
    table.seen = Snapshot([*mine(0), Lease(1, None, 0, FREE)], [])
    table.broken = {broken}
    with pytest.raises(TimeoutError):
        await relay.beat()
    table.broken = {"look", "take"}
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await relay.beat()
        assert table.statements == ["look"]
    table.broken = {"take"}
    with pytest.raises(TimeoutError):
        await relay.beat()
    assert table.statements == ["look", "renew", "take"], "no announcement"


async def test_without_the_one_statement_the_beat_is_done_in_steps() -> None:
    relay = Relay(own_with(0), table := Scripted(Snapshot(mine(0), [])))
    table.has_one_form = False
    await relay.beat()
    assert await relay.beat() == ["renew_and_look", "look", "renew", "announce"]
