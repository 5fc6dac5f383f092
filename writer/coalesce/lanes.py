"""Which lane an event goes to, so that no entity is ever in two of them: no I/O.

An event pins its entities to a lane from the time it is queued there until it is
settled. One whose entities are pinned to two lanes waits, and whoever shares an
entity with it waits behind it: so events pass no other on an entity, and none
waits for ever, since nothing new is pinned in front of it.
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
    """Where an event is."""

    WAITING = "waiting"
    QUEUED = "queued"
    SENT = "sent"
    GONE = "gone"


class Ticket:
    """An event on its way; `entities` begins with its subject."""

    def __init__(self, event_id: UUID, entities: Sequence[Key]) -> None:
        self.entities = entities
        self.keys: Sequence[Hashable] = (event_id, *entities)
        self.place = TicketState.WAITING
        self.lane = 0
        self.held = False


class _Pin:
    """How many events keep a key in its lane, and how many of them let no other join."""

    __slots__ = ("alone", "count", "lane")

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self.count = 0
        self.alone = 0


T = TypeVar("T", bound=Ticket)


class Lanes(Generic[T]):
    """`count` queues of events, and the events that wait for one.

    `wake` is told each lane that an event is queued in. An event's id is a key as
    its entities are, except that no two events share it: the second waits for the
    end of the first.
    """

    def __init__(self, count: int, wake: Callable[[int], None]) -> None:
        self._wake = wake
        self._queues: list[OrderedDict[T, None]] = [OrderedDict() for _ in range(count)]
        self._pins: dict[Hashable, _Pin] = {}
        self._lines: dict[Hashable, OrderedDict[T, None]] = {}

    def add(self, ticket: T) -> None:
        """Queue an event, or let it wait for its entities."""
        if not self._placed(ticket):
            for key in ticket.keys:
                self._lines.setdefault(key, OrderedDict())[ticket] = None

    def queued(self, lane: int) -> Collection[T]:
        """What is queued in a lane, in order."""
        return self._queues[lane].keys()

    def take(self, lane: int, count: int) -> list[T]:
        """The next `count` events of a lane; they are sent now."""
        taken = [self._queues[lane].popitem(last=False)[0] for _ in range(count)]
        for ticket in taken:
            ticket.place = TicketState.SENT
        return taken

    def hold(self, lane: int, tickets: Iterable[T]) -> None:
        """Let events of one lane go on beside it: until each is settled, its entities rest.

        What is queued for such an entity waits again, before all that came later.
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

    def settled(self, ticket: T) -> None:
        """An event that was sent is over: its entities are free."""
        if ticket.place is TicketState.SENT:
            ticket.place = TicketState.GONE
            self._unpin(ticket)
            self._advance(ticket.keys)

    def withdraw(self, ticket: T) -> bool:
        """Forget an event that is not sent yet; returns whether that was so."""
        if ticket.place is TicketState.WAITING:
            self._leave_lines(ticket)
        elif ticket.place is TicketState.QUEUED:
            del self._queues[ticket.lane][ticket]
            self._unpin(ticket)
        else:
            return False
        ticket.place = TicketState.GONE
        self._advance(ticket.keys)
        return True

    def _placed(self, ticket: T) -> bool:
        lane = self._lane_for(ticket)
        if lane is None:
            return False
        ticket.place, ticket.lane = TicketState.QUEUED, lane
        self._queues[lane][ticket] = None
        for key in ticket.keys:
            pin = self._pins.get(key)
            if pin is None:
                pin = self._pins[key] = _Pin(lane)
            pin.count += 1
        self._pins[ticket.keys[0]].alone += 1
        self._wake(lane)
        return True

    def _lane_for(self, ticket: T) -> int | None:
        """The one lane that an event may go to now, if there is one."""
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
        """Queue what waited first for these keys and may go now, and who came behind it."""
        todo = deque(keys)
        while todo:
            line = self._lines.get(todo.popleft())
            if line and self._placed(first := next(iter(line))):
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
        ticket.place = TicketState.WAITING
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
