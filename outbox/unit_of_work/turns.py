"""Turns: of the calls that name an entity, one runs at a time. It decides only, and waits nowhere.

A call joins the lines of all its entities at once, and its turn comes when it is the first of
each. It only ever waits for calls that came before it, so calls that name the same entities in
another order cannot wait for each other, and none is overtaken.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

EntityKey = tuple[str, str]
"""An entity's type and id."""


class Turn:
    """The place of one call in the lines of its entities.

    `in_front` is the number of lines in which other calls are before it. `wake` is called once,
    when there is none any more, unless that was so from the start.
    """

    __slots__ = ("entities", "in_front", "wake")

    def __init__(self, entities: Collection[EntityKey]) -> None:
        self.entities = frozenset(entities)
        self.in_front = 0
        self.wake: Callable[[], None] = _nobody


class Turns:
    """The lines of one writer, one for each entity that a call names now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[EntityKey, OrderedDict[Turn, None]] = {}

    def join(self, turn: Turn, wake: Callable[[], None]) -> bool:
        """Join the lines. Return whether the turn is there already, else `wake` follows."""
        with self._lock:
            turn.wake = wake
            for key in turn.entities:
                line = self._lines.setdefault(key, OrderedDict())
                turn.in_front += bool(line)
                line[turn] = None
            return not turn.in_front

    @property
    def is_empty(self) -> bool:
        """Whether no call has a turn."""
        return not self._lines

    def has_line(self, entities: Collection[EntityKey]) -> bool:
        """Whether a call has the turn of one of these entities, or waits for it."""
        return any(key in self._lines for key in entities)

    def leave(self, turn: Turn) -> None:
        """Leave the lines, in which the turn may have been or still waits."""
        with self._lock:
            for key in turn.entities:
                line = self._lines.get(key)
                if line is None or turn not in line:
                    continue
                was_first = next(iter(line)) is turn
                del line[turn]
                if not line:
                    del self._lines[key]
                elif was_first:
                    _advance(next(iter(line)))


def _advance(turn: Turn) -> None:
    turn.in_front -= 1
    if not turn.in_front:
        turn.wake()


def _nobody() -> None:
    """Nobody waits yet."""
