"""Assign events to lanes so that no entity is in two lanes at once. No I/O.

An event pins its entities to a lane from the time when it is queued there until it
is settled. An event whose entities are pinned to different lanes waits. A later
event that shares an entity with it waits behind it. So events of one entity keep
their order. No event waits for ever, because no later event can pin an entity in
front of it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from enum import Enum
from typing import Generic, TypeVar
from uuid import UUID
from zlib import crc32

Key = tuple[str, str]
"""An entity's type and id."""


class TicketState(Enum):
    """The state of an event: waiting for its entities, queued in a lane, taken out of it, or gone.

    An event that was taken may still wait for a connection. Only the gate sends it.
    """

    WAITING = "waiting"
    QUEUED = "queued"
    TAKEN = "taken"
    GONE = "gone"


class Ticket:
    """An event that is not settled. `entities` begins with its subject."""

    def __init__(self, event_id: UUID, entities: Sequence[Key]) -> None:
        self.entities = entities
        self.keys: Sequence[Hashable] = (event_id, *entities)
        self.state = TicketState.WAITING
        self.lane = 0
        self.held = False


class _Pin:
    """The lane of a key.

    `count` is the number of events that pin the key, `alone` the number of those that let
    no other event join.
    """

    __slots__ = ("alone", "count", "lane")

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self.count = 0
        self.alone = 0


T = TypeVar("T", bound=Ticket)


class Lanes(Generic[T]):
    """`count` queues of events, and the events that wait for a queue.

    `wake` is called with the lane in which an event was queued. The keys of an event are its
    id and its entities. Two events of one id are never in lanes together: the second waits
    until the first is settled.
    """

    def __init__(self, count: int, wake: Callable[[int], None]) -> None:
        self._wake = wake
        self._queues: list[OrderedDict[T, None]] = [OrderedDict() for _ in range(count)]
        self._pins: dict[Hashable, _Pin] = {}
        self._lines: dict[Hashable, OrderedDict[T, None]] = {}

    def add(self, ticket: T) -> None:
        """Queue an event, or let it wait until its entities are free."""
        if not self._place(ticket):
            for key in ticket.keys:
                self._lines.setdefault(key, OrderedDict())[ticket] = None

    def queued(self, lane: int) -> Collection[T]:
        """Return the events that are queued in a lane, in order."""
        return self._queues[lane].keys()

    def take(self, lane: int, count: int) -> list[T]:
        """Take the next `count` events of a lane out of its queue."""
        taken = [self._queues[lane].popitem(last=False)[0] for _ in range(count)]
        for ticket in taken:
            ticket.state = TicketState.TAKEN
        return taken

    def hold(self, lane: int, tickets: Iterable[T]) -> None:
        """Block the entities of these taken events until each is settled.

        The lane then continues without them. Queued events that share an entity with them
        wait again, ahead of all later events.
        """
        blocked: set[Hashable] = set()
        for ticket in tickets:
            ticket.held = True
            blocked.update(ticket.keys)
            for key in ticket.keys:
                self._pins[key].alone += 1
        moved: list[T] = []
        for ticket in self._queues[lane]:
            if not blocked.isdisjoint(ticket.keys):
                blocked.update(ticket.keys)
                moved.append(ticket)
        for ticket in reversed(moved):
            self._put_back(ticket)

    def release(self, ticket: T) -> None:
        """Release the entities of a taken event that is settled, or whose caller has left."""
        if ticket.state is TicketState.TAKEN:
            ticket.state = TicketState.GONE
            self._unpin(ticket)
            self._advance(ticket.keys)

    def withdraw(self, ticket: T) -> bool:
        """Remove an event that was not taken. Return False if it was."""
        if ticket.state is TicketState.WAITING:
            self._leave_lines(ticket)
        elif ticket.state is TicketState.QUEUED:
            del self._queues[ticket.lane][ticket]
            self._unpin(ticket)
        else:
            return False
        ticket.state = TicketState.GONE
        self._advance(ticket.keys)
        return True

    def _place(self, ticket: T) -> bool:
        lane = self._lane_for(ticket)
        if lane is None:
            return False
        ticket.state, ticket.lane = TicketState.QUEUED, lane
        self._queues[lane][ticket] = None
        for key in ticket.keys:
            pin = self._pins.get(key)
            if pin is None:
                pin = self._pins[key] = _Pin(lane)
            pin.count += 1
        self._pins[ticket.keys[0]].alone += 1  # the id: no other event of it may join
        self._wake(lane)
        return True

    def _lane_for(self, ticket: T) -> int | None:
        """Return the lane to which an event may go now, or None if it must wait."""
        lanes: set[int] = set()
        for key in ticket.keys:
            line = self._lines.get(key)
            if line and next(iter(line)) is not ticket:
                return None
            if pin := self._pins.get(key):
                if pin.alone:
                    return None
                lanes.add(pin.lane)
        if len(lanes) > 1:
            return None
        return lanes.pop() if lanes else self._first_choice(ticket)

    def _first_choice(self, ticket: T) -> int:
        return crc32("/".join(ticket.entities[0]).encode()) % len(self._queues)

    def _advance(self, keys: Iterable[Hashable]) -> None:
        """Queue the first event in the line of each key, if it may go now.

        Then do the same for the keys of each event that was queued.
        """
        todo = deque(keys)
        while todo:
            line = self._lines.get(todo.popleft())
            if line and self._place(first := next(iter(line))):
                self._leave_lines(first)
                todo.extend(first.keys)

    def _leave_lines(self, ticket: T) -> None:
        for key in ticket.keys:
            line = self._lines[key]
            del line[ticket]
            if not line:
                del self._lines[key]

    def _put_back(self, ticket: T) -> None:
        del self._queues[ticket.lane][ticket]
        self._unpin(ticket)
        ticket.state = TicketState.WAITING
        for key in ticket.keys:
            line = self._lines.setdefault(key, OrderedDict())
            line[ticket] = None
            line.move_to_end(ticket, last=False)

    def _unpin(self, ticket: T) -> None:
        self._pins[ticket.keys[0]].alone -= 1
        for key in ticket.keys:
            pin = self._pins[key]
            pin.count -= 1
            pin.alone -= ticket.held
            if pin.count == 0:
                del self._pins[key]
