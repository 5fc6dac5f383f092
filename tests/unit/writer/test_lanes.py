"""Which lane an event goes to: any calls, ends, retries and withdrawals, in any order."""

from collections import defaultdict
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dsql_outbox.writer.coalesce.lanes import Key, Lanes, Ticket, TicketState

LANES = 3
KEYS: list[Key] = [("Car", f"CAR-{n}") for n in range(6)]

an_event = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
a_choice = st.integers(0, 1 << 20)


class Traffic(RuleBasedStateMachine):
    """Lanes under traffic: each lane has one batch in flight, batches beside them any number."""

    def __init__(self) -> None:
        super().__init__()
        self.woken: set[int] = set()
        self.lanes: Lanes[Ticket] = Lanes(LANES, self.woken.add)
        self.flying: dict[int, list[Ticket]] = {}
        self.beside: list[list[Ticket]] = []
        self.tickets: list[Ticket] = []
        self.sent: list[Ticket] = []

    @rule(keys=an_event, same=st.none() | a_choice)
    def add(self, keys: list[Key], same: int | None) -> None:
        number = len(self.tickets) if same is None else same % (len(self.tickets) + 1)
        ticket = Ticket(UUID(int=number), keys)
        self.tickets.append(ticket)
        self.lanes.add(ticket)

    @rule(lane=st.integers(0, LANES - 1), count=st.integers(1, 4))
    def send(self, lane: int, count: int) -> None:
        if not self.flying.get(lane):
            batch = self.lanes.take(lane, min(count, len(self.lanes.queued(lane))))
            self.flying[lane] = batch
            self.sent += batch

    @rule(lane=st.integers(0, LANES - 1))
    def settle(self, lane: int) -> None:
        for ticket in self.flying.pop(lane, []):
            self.lanes.release(ticket)

    @rule(lane=st.integers(0, LANES - 1), settled=st.integers(0, 2))
    def hold(self, lane: int, settled: int) -> None:
        batch = self.flying.pop(lane, [])
        for ticket in batch[:settled]:
            self.lanes.release(ticket)
        if batch[settled:]:
            self.lanes.hold(lane, batch[settled:])
            self.beside.append(batch[settled:])

    @precondition(lambda self: self.beside)
    @rule(choice=a_choice)
    def settle_beside(self, choice: int) -> None:
        batch = self.beside[choice % len(self.beside)]
        self.lanes.release(batch.pop(0))
        if not batch:
            self.beside.remove(batch)

    @precondition(lambda self: self.tickets)
    @rule(choice=a_choice)
    def withdraw(self, choice: int) -> None:
        ticket = self.tickets[choice % len(self.tickets)]
        unsent = ticket.state in {TicketState.WAITING, TicketState.QUEUED}
        assert self.lanes.withdraw(ticket) is unsent

    @invariant()
    def no_key_is_at_work_in_two_transactions(self) -> None:
        batches = [*self.flying.values(), *self.beside]
        keys = [key for batch in batches for key in {k for t in batch for k in t.keys}]
        assert len(keys) == len(set(keys))

    @invariant()
    def no_entity_is_in_two_lanes(self) -> None:
        places = defaultdict(set)
        flying = [ticket for batch in self.flying.values() for ticket in batch]
        for ticket in [*flying, *(t for lane in range(LANES) for t in self.lanes.queued(lane))]:
            for key in ticket.keys:
                places[key].add(ticket.lane)
        assert all(len(lanes) == 1 for lanes in places.values())

    @invariant()
    def no_event_passes_another_on_an_entity(self) -> None:
        number = {ticket: n for n, ticket in enumerate(self.tickets)}
        for key in KEYS:
            order = [number[ticket] for ticket in self.sent if key in ticket.keys]
            assert order == sorted(order)

    def teardown(self) -> None:
        """When all transactions end, every event gets its turn and nothing is kept."""
        for _ in range(len(self.tickets) + 1):
            for lane in range(LANES):
                self.settle(lane)
            while self.beside:
                self.settle_beside(0)
            for lane in range(LANES):
                self.send(lane, 1 << 20)
        self.no_event_passes_another_on_an_entity()
        assert {ticket.state for ticket in self.tickets} <= {TicketState.GONE}
        assert (self.lanes._pins, self.lanes._lines) == ({}, {})


TestTraffic = Traffic.TestCase


@pytest.fixture
def lanes() -> Lanes[Ticket]:
    return Lanes(LANES, lambda _: None)


def ticket(n: int, *keys: Key) -> Ticket:
    return Ticket(UUID(int=n), keys)


def test_an_event_joins_the_lane_of_its_entities(lanes: Lanes[Ticket]) -> None:
    first, second = ticket(1, KEYS[0]), ticket(2, KEYS[1], KEYS[0])
    lanes.add(first)
    lanes.add(second)
    assert second.lane == first.lane


def test_an_event_across_two_lanes_waits_and_lets_others_pass(lanes: Lanes[Ticket]) -> None:
    singles = [ticket(n, key) for n, key in enumerate(KEYS)]
    for single in singles:
        lanes.add(single)
    one, other = next((a, b) for a in singles for b in singles if a.lane != b.lane)
    across = ticket(10, one.entities[0], other.entities[0])
    lanes.add(across)
    unrelated = ticket(11, ("Loan", "LOAN-1"))
    lanes.add(unrelated)
    assert (across.state, unrelated.state) == (TicketState.WAITING, TicketState.QUEUED)
    assert lanes.withdraw(other)
    assert (across.state, across.lane) == (TicketState.QUEUED, one.lane)


def test_what_a_retry_sends_back_waits_before_what_came_later(lanes: Lanes[Ticket]) -> None:
    singles = [ticket(n, key) for n, key in enumerate(KEYS)]
    for single in singles:
        lanes.add(single)
    first, other = next((a, b) for a in singles for b in singles if a.lane != b.lane)
    second = ticket(10, *first.entities)
    third = ticket(11, *first.entities, *other.entities)
    lanes.add(second)
    lanes.add(third)
    count = list(lanes.queued(first.lane)).index(first) + 1
    batch = lanes.take(first.lane, count)
    lanes.hold(first.lane, batch)
    assert (second.state, third.state) == (TicketState.WAITING, TicketState.WAITING)
    lanes.withdraw(other)
    for sent in batch:
        lanes.release(sent)
    places = [*lanes.queued(first.lane)]
    assert places.index(second) < places.index(third)
