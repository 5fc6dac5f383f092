"""Turns: of the calls that name an entity, one runs at a time. It decides only, and waits nowhere.

A call joins the lines of all its entities at once, and its turn comes when it is the first of
each. It only ever waits for calls that came before it, so calls that name the same entities in
another order cannot wait for each other, and none is overtaken.

The lines hold the turns weakly, so a turn ends with its call, even if an interrupt keeps the call
from leaving. Then nobody wakes the calls behind it: each looks again from time to time.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from weakref import ref

EntityKey = tuple[str, str]
"""An entity's type and id."""


class Turn:
    """The place of one call in the lines of its entities.

    `has_conflicted` tells whether the call has met a conflict. `wake` is called when the turn has
    come, once or more often, unless that was so from the start.
    """

    __slots__ = ("__weakref__", "entities", "has_conflicted", "has_left", "wake")

    def __init__(self, entities: Collection[EntityKey], has_conflicted: Callable[[], bool]) -> None:
        self.entities = frozenset(entities)
        self.has_conflicted = has_conflicted
        self.has_left = False
        self.wake: Callable[[], None] = _nobody


class Turns:
    """The lines of one writer, one for each entity that a call names now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[EntityKey, OrderedDict[ref[Turn], None]] = {}

    def join(self, turn: Turn, wake: Callable[[], None]) -> bool:
        """Join the lines. Return whether the turn is there already, else `wake` follows."""
        with self._lock:
            turn.wake = wake
            for key in turn.entities:
                self._lines.setdefault(key, OrderedDict())[ref(turn)] = None
            return self._has_come(turn)

    def has_come(self, turn: Turn) -> bool:
        """Whether the turn of a call that has joined the lines is there."""
        with self._lock:
            return self._has_come(turn)

    def has_conflicted_call(self, entities: Collection[EntityKey]) -> bool:
        """Whether a call in one of these lines has met a conflict."""
        if not self._lines:  # without the lock: most calls end here
            return False
        with self._lock:
            places = (place for key in entities for place in self._lines.get(key, ()))
            return any(
                turn.has_conflicted() for place in places if (turn := place()) and not turn.has_left
            )

    def leave(self, turn: Turn) -> None:
        """Leave the lines, in which the turn may have been or still waits."""
        turn.has_left = True  # first, so that an interrupt in what follows cannot keep its place
        with self._lock:
            for key in turn.entities:
                if (line := self._lines.get(key)) is not None:
                    line.pop(ref(turn), None)
            for key in turn.entities:
                first = self._first(key)
                if first is not None and self._has_come(first):
                    first.wake()

    def _has_come(self, turn: Turn) -> bool:
        return all(self._first(key) is turn for key in turn.entities)

    def _first(self, key: EntityKey) -> Turn | None:
        """Return the first in a line, behind those whose calls are gone, which are forgotten."""
        line = self._lines.get(key)
        while line:
            place = next(iter(line))
            if (turn := place()) is not None and not turn.has_left:
                return turn
            del line[place]
        self._lines.pop(key, None)
        return None


def _nobody() -> None:
    """Nobody waits yet."""
