"""The connections of an owner, and the calls that wait for one. It decides only, and opens none."""

import math
import select
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, time
from typing import Final, Generic, TypeVar
from weakref import WeakSet

import psycopg

from dsql_outbox.observability.facts import PoolCounts
from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.failure import FailureKind, kind_of

C = TypeVar("C", Connection, AsyncConnection)

TOO_LATE: Final = "no connection before the deadline of the call"

_LONG: Final = 5.0
"""Seconds after which an opening may never end, as after a packet was lost or a Lambda was frozen.

Then another one begins beside it for the next call, if the limit allows it.
"""

PAUSE: Final = 1.0
"""Seconds between two closings of a kept connection that is wanted.

Another call waits for it, or one has used it within so many seconds. Calls with and without the
search path of the role use different connections. If each closed those of the other kind for its
turn, connections would be opened all the time.
"""


class Opening:
    """A connection that is being opened. It belongs to the owner and outlives any call.

    `abandoned` is set when no call will want the connection any more. `has_begun` is set by the
    thread or task that opens it.
    """

    def __init__(self, *, role_path: bool) -> None:
        self.role_path = role_path
        self.has_begun = False
        self.abandoned = threading.Event()
        self._began = time()

    @property
    def is_promising(self) -> bool:
        """Whether a call should wait for it. By the wall clock, as `Shelf` has it."""
        return 0 <= time() - self._began <= _LONG


class Waiter(Generic[C]):
    """A call that waits for a connection with this search path, never used if `fresh`.

    `wake` is called when it has got `connection`, or `error` of an opening. `deadline` is that
    of the call, a time of the monotonic clock, or None.
    """

    def __init__(
        self, wake: Callable[[], None], *, fresh: bool, role_path: bool, deadline: float | None
    ) -> None:
        self.wake = wake
        self.role_path = role_path
        self.connection: C | None = None
        self.error: BaseException | None = None
        self._fresh = fresh
        self._deadline = math.inf if deadline is None else deadline
        self._asked_at = monotonic()

    @property
    def is_answered(self) -> bool:
        """Whether the call has got a connection or an error."""
        return self.connection is not None or self.error is not None

    @property
    def is_gone(self) -> bool:
        """Whether the call is cancelled, and has not left yet."""
        return False

    @property
    def is_late(self) -> bool:
        """Whether the call has waited for longer than the time that it has left."""
        now = monotonic()
        return self._deadline - now < now - self._asked_at

    @property
    def needs_no_new(self) -> bool:
        """Whether the call can use a connection that was used before."""
        return not self._fresh

    def accepts(self, connection: C) -> bool:
        """Return whether the call can use this connection."""
        fits = connection.role_path == self.role_path
        return fits and not (self._fresh and connection.was_used)


class Line(Generic[C]):
    """The calls that wait, in the order in which they are served: the oldest first, late ones last.

    Of those that are late, the newest one is the first: it has the most time left. A late call
    would take a connection with it, which is closed if its time ends in the middle of a statement.
    """

    def __init__(self) -> None:
        self._in_time: OrderedDict[Waiter[C], None] = OrderedDict()
        self._late: OrderedDict[Waiter[C], None] = OrderedDict()

    def __iter__(self) -> Iterator[Waiter[C]]:
        # A call that is late stays late, so each moves once, and an answer costs the same however
        # many are late. One behind a call with a longer timeout moves when it comes to the front.
        while self._in_time and (oldest := next(iter(self._in_time))).is_late:
            self._late[oldest] = None  # first: an interrupt between the two must not lose it
            del self._in_time[oldest]
        yield from self._in_time
        yield from reversed(self._late)

    def __len__(self) -> int:
        return len(self._in_time) + len(self._late)

    def add(self, waiter: Waiter[C]) -> None:
        """Let a call wait behind the others."""
        self._in_time[waiter] = None

    def discard(self, waiter: Waiter[C]) -> None:
        """Let a call leave, if it waits."""
        self._in_time.pop(waiter, None)
        self._late.pop(waiter, None)

    def clear(self) -> None:
        """Forget all calls."""
        self._in_time.clear()
        self._late.clear()


class Shelf(Generic[C]):
    """Knows the connections in use, the kept ones, the openings and the calls that wait.

    The first three together never exceed the limit. The first call of a kind in the line is
    served by whatever comes first: a connection given back, or one that was opened, whichever call
    asked for it.

    Connections in use and openings are weak sets and not numbers, so an interrupt at any point
    can neither lose nor double one. A lost connection frees its place.
    """

    def __init__(self, limit: int, *, keep_failed: bool, max_idle: float | None) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._in_use: WeakSet[C] = WeakSet()
        self._kept: deque[C] = deque()
        self._openings: WeakSet[Opening] = WeakSet()
        self._waiting: Line[C] = Line()
        self._foreseen: Counter[bool] = Counter()
        self._is_closed = False
        self._closed_wanted_at = -math.inf
        self._has_no_taker = False
        """Whether no call that waits can use what is kept. Then no look through all of them."""
        self.keeps_prepared = True
        """Whether no session has lost a prepared statement in a transaction, as behind a pooler."""
        self.holds_back = False
        """Whether a call waits for the end of a pause between two closings."""

    def has_room(self, kept: int = 0) -> bool:
        """Return whether another connection may be opened beside so many kept ones."""
        return len(self._in_use) + len(self._openings) + kept < self._limit

    def counts(self) -> PoolCounts:
        """Count the kept connections, those in use, and the calls that wait."""
        with self._lock:
            limit = 0 if self._is_closed else self._limit
            return PoolCounts(len(self._kept), len(self._in_use), len(self._waiting), limit)

    def borrow(self) -> C | None:
        """Lend the connection that was used last, unless a call waits; None if none is kept."""
        with self._lock:
            while self._kept and not self._waiting:
                connection = self._kept.pop()
                if self._is_usable(connection):
                    self._in_use.add(connection)
                    return connection
                connection.drop()
        return None

    def ask(self, waiter: Waiter[C]) -> None:
        """Give a call what is kept, if no other call waits, or let it wait for a connection."""
        with self._lock:
            if not self._waiting and self._give_kept(waiter):
                waiter.wake()
                return
            self._waiting.add(waiter)
            if not waiter.needs_no_new or any(map(waiter.accepts, self._kept)):
                self._has_no_taker = False

    def leave(self, waiter: Waiter[C]) -> None:
        """End a wait. The next call may have what this one got too late."""
        with self._lock:
            self._waiting.discard(waiter)
            connection, waiter.connection = waiter.connection, None
            if connection is not None and connection in self._in_use:
                self._in_use.discard(connection)
                self._shelve(connection)

    def serve(self, begun: list[Opening]) -> None:
        """Answer the calls that can have a connection now, and add the openings to start."""
        with self._lock:
            self.holds_back = False
            # First what is kept goes to calls that it fits. The rest makes room for the others.
            for others_first in (True, False) if self._waiting else ():
                covering = Counter(o.role_path for o in self._openings if o.is_promising)
                for waiter in self._first_in_line(covering, begun, others_first=others_first):
                    self._waiting.discard(waiter)
                    waiter.wake()
            if self._is_closed:
                self._drop_kept()

    def forget(self, openings: Sequence[Opening]) -> None:
        """Let openings count no more that nobody has begun, after an interrupt of the call."""
        with self._lock:
            self._openings.difference_update([o for o in openings if not o.has_begun])

    def foresee(self, begun: list[Opening], *, role_path: bool) -> None:
        """Note a call that asks after its wait. Add an opening for it, if there is room.

        The connection goes to whichever call asks first, so none is thrown away, and none is
        opened if one that was never used is left over.
        """
        with self._lock:
            self._foreseen[role_path] += 1
            coming = [o for o in self._openings if o.role_path == role_path]
            unused = [c for c in self._kept if c.role_path == role_path and not c.was_used]
            asking = [w for w in self._waiting if w.role_path == role_path]
            left_over = len(coming) + len(unused) - len(asking)
            has_room = self.has_room(len(self._kept)) and not self._is_closed
            if left_over < self._foreseen[role_path] and has_room:
                self._begin(begun, role_path=role_path)

    def end_wait(self, *, role_path: bool) -> None:
        """Note the end of that wait."""
        with self._lock:
            # Not below 0: `forget_calls` may have come between.
            self._foreseen[role_path] = max(0, self._foreseen[role_path] - 1)

    def surplus(self) -> Sequence[Opening]:
        """Return the openings of a closed owner that no call waits for."""
        if not self._is_closed:  # without the lock: it is set once, and nearly all calls end here
            return []
        with self._lock:
            wanted = Counter(waiter.role_path for waiter in self._waiting)
            surplus: list[Opening] = []
            for opening in self._openings:
                wanted[opening.role_path] -= 1
                if wanted[opening.role_path] < 0:
                    surplus.append(opening)
            return surplus

    def finish_opening(self, opening: Opening, connection: C) -> None:
        """Give a new connection to the first call in the order of its kind, or keep it.

        It goes there unchecked: if a check failed, another opening would begin, and so on.
        """
        with self._lock:
            is_ours = opening in self._openings
            waiter = self._first_waiting(opening)
            self._openings.discard(opening)
            self._has_no_taker = False
            if is_ours and waiter is not None:
                self._waiting.discard(waiter)
                self._in_use.add(connection)
                waiter.connection = connection
                waiter.wake()
            elif is_ours:
                connection.kept_at = time()
                self._shelve(connection)
        if not is_ours:
            connection.drop()

    def fail_opening(self, opening: Opening, error: BaseException | None) -> None:
        """End an opening. The first call in the order of its kind gets the error."""
        with self._lock:
            waiter = self._first_waiting(opening)
            is_told = opening in self._openings and error is not None
            self._openings.discard(opening)
            self._has_no_taker = False
            if is_told and waiter is not None:
                self._waiting.discard(waiter)
                waiter.error = error
                waiter.wake()

    def none_in_time(self, waiter: Waiter[C], owner: str) -> psycopg.OperationalError:
        """Return the error of a call whose deadline has passed. `owner` has the connections."""
        with self._lock:
            openings = sum(o.role_path == waiter.role_path for o in self._openings)
        if not openings:
            return psycopg.OperationalError(
                f"all {self._limit} connections of the {owner} are in use (max_connections)"
            )
        return psycopg.OperationalError(
            f"{TOO_LATE}: {openings} of at most {self._limit} connections of the {owner} "
            "(max_connections) are being opened, and a later call gets them"
        )

    def keep(self, connection: C) -> None:
        """Keep a connection that was in use, or close it if its session is not clean."""
        connection.deadline = None
        connection.was_used = True
        connection.kept_at = time()
        with self._lock:
            is_ours = connection in self._in_use
            may_stay = self._max_idle != 0 and _lasts(connection)
            is_kept = is_ours and may_stay and connection.is_clean
            self._in_use.discard(connection)
            if is_kept:
                self._shelve(connection)
        if not is_kept:
            connection.drop()

    def keep_or_drop(self, connection: C, error: BaseException) -> None:
        """Take back a connection whose attempt failed.

        Keep it if it is clean and `keep_failed` is set. A unique violation says nothing
        about the connection, so after one a clean connection is always kept. If the server
        has become read-only, the kept connections are useless too, since they lead to it.
        """
        if _is(FailureKind.READ_ONLY, error):
            connection.drop()
            with self._lock:
                self._drop_kept()
        if _is(FailureKind.NOT_PREPARED, error):
            self.keeps_prepared = False
        key_exists = _is(FailureKind.COLLISION, error) or _is(FailureKind.KEY_TAKEN, error)
        if not (self._keep_failed or key_exists):
            connection.drop()
        self.keep(connection)

    def lose(self, connection: C) -> None:
        """Close a connection whose return was interrupted. Its place is free.

        The errors of a failed call may refer to it, so Python collects it late or never.
        """
        with self._lock:
            self._in_use.discard(connection)
        connection.drop()

    def forget_calls(self) -> None:
        """Close the connections in use. Forget openings and waiting calls, which may never end."""
        with self._lock:
            for abandoned in list(self._in_use):
                abandoned.drop()
            self._in_use.clear()
            self._openings.clear()
            self._waiting.clear()
            self._foreseen.clear()

    def close(self) -> None:
        """Keep no connection from now on that no call waits for."""
        self._is_closed = True

    def _begin(self, begun: list[Opening], *, role_path: bool) -> None:
        begun.append(Opening(role_path=role_path))  # first: an interrupt must find it there
        self._openings.add(begun[-1])

    def _first_waiting(self, opening: Opening) -> Waiter[C] | None:
        """Return the call that an opening serves."""
        fitting = (w for w in self._waiting if w.role_path == opening.role_path)
        return next((w for w in fitting if not (w.is_gone or w.is_answered)), None)

    def _shelve(self, connection: C) -> None:
        self._kept.append(connection)
        self._has_no_taker = False

    def _first_in_line(
        self, covering: "Counter[bool]", begun: list[Opening], *, others_first: bool
    ) -> "list[Waiter[C]]":
        """Return the calls that got a connection, and begin openings for those that did not.

        An opening covers one call: it waits, and no other opening is begun for it.
        """
        answered: list[Waiter[C]] = []
        for waiter in self._waiting:
            if waiter.is_gone:
                continue
            # One that is answered already: an interrupt came before its removal.
            if waiter.is_answered or self._give_kept(waiter):
                answered.append(waiter)
            elif covering[waiter.role_path] > 0:
                covering[waiter.role_path] -= 1
            elif self._has_made_room(waiter, others_first=others_first):
                self._begin(begun, role_path=waiter.role_path)
            elif not self._kept or self._has_no_taker:
                break
        else:
            self._has_no_taker = not others_first
        return answered

    def _give_kept(self, waiter: Waiter[C]) -> bool:
        """Give a call the most recently kept usable connection that it accepts, if there is one.

        One that was never used comes last: a call whose attempt failed may want it.
        """
        kept = reversed(self._kept)
        for connection in sorted(kept, key=lambda c: not c.was_used):
            if waiter.accepts(connection):
                self._kept.remove(connection)
                if self._is_usable(connection):
                    self._in_use.add(connection)
                    waiter.connection = connection
                    return True
                connection.drop()
        return False

    def _has_made_room(self, waiter: Waiter[C], *, others_first: bool) -> bool:
        """Make room for a call, by closing the connection kept longest, if that may be.

        A call whose kind has connections in use can wait for one of them. Then a kept connection
        that is wanted is closed for it only after a pause, and with `others_first` any one.
        """
        if self.has_room(len(self._kept)):
            return True
        if not self._kept:
            return False
        oldest, now = self._kept[0], monotonic()
        kinds = {each.role_path for each in self._in_use} | {o.role_path for o in self._openings}
        can_wait = waiter.role_path in kinds and waiter.needs_no_new
        is_wanted = self._was_idle_for(oldest) < PAUSE or any(
            other.accepts(oldest) for other in self._waiting
        )
        if can_wait and (others_first or is_wanted) and now < self._closed_wanted_at + PAUSE:
            self.holds_back = True
            return False
        if is_wanted:
            self._closed_wanted_at = now
        self._kept.popleft().drop()
        return self.has_room()

    def _drop_kept(self) -> None:
        while self._kept:
            self._kept.pop().drop()

    def _is_usable(self, connection: C) -> bool:
        lasts = self._was_idle_briefly(connection) and _lasts(connection)
        return lasts and _silent(connection)

    def _was_idle_briefly(self, connection: C) -> bool:
        # If the clock was set back, the idle time is unknown, and the connection is not reused.
        return self._max_idle is None or 0 <= self._was_idle_for(connection) <= self._max_idle

    @staticmethod
    def _was_idle_for(connection: C) -> float:
        # By the wall clock, since a monotonic clock may stop in a frozen Lambda.
        return time() - connection.kept_at


def _is(kind: FailureKind, error: BaseException) -> bool:
    return isinstance(error, Exception) and kind_of(error) is kind


def _lasts(connection: Connection | AsyncConnection) -> bool:
    return not connection.closed and monotonic() < connection.retires_at


def _silent(connection: Connection | AsyncConnection) -> bool:
    """Return whether the server has sent nothing since the last answer.

    A restart or a time limit of the server ends all kept connections together. Its final
    message or the end of the stream shows that, without a failed attempt per connection.
    """
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)
