"""Pure: the events of a trial, and the transactions that write them."""

import json
import random
from collections.abc import Iterator
from typing import NamedTuple

LANES = 4
"""Connections that write at the same time. All events of a key are written by one of them."""

TOPICS = ("early", "late")
"""Each key has its events in one of them. In one harm the second is missing at first."""

_TOGETHER = 4  # the most events of a transaction
_HELD = 24  # transactions that stay open
_HOLD = (0.2, 0.8)  # seconds for which they do


class Event(NamedTuple):
    """An event; the numbers of a key rise in the order in which its transactions commit."""

    number: int
    key: str
    topic: str

    @property
    def payload(self) -> bytes:
        """What the library stores and sends: JSON."""
        return json.dumps(self._asdict(), separators=(",", ":")).encode()


class Transaction(NamedTuple):
    """Events of one transaction, and the seconds between the last of them and COMMIT."""

    events: list[Event]
    hold: float = 0.0


def events(seed: int, number: int, keys: int) -> list[Event]:
    """The events of a seed."""
    chosen = random.Random(f"events {seed}")
    return [_event(n, chosen.randrange(keys)) for n in range(number)]


def lanes(seed: int, found: list[Event], held: bool) -> list[list[Transaction]]:
    """The transactions of each connection, some of them held open if `held`."""
    chosen = random.Random(f"transactions {seed}")
    each = [list(_transactions(chosen, found, lane)) for lane in range(LANES)]
    places = [(lane, n) for lane, of_lane in enumerate(each) for n in range(len(of_lane))]
    for lane, n in chosen.sample(places, min(_HELD, len(places) // LANES)) if held else ():
        each[lane][n] = each[lane][n]._replace(hold=chosen.uniform(*_HOLD))
    return each


def _event(number: int, key: int) -> Event:
    return Event(number, f"key-{key}", TOPICS[key % len(TOPICS)])


def _transactions(chosen: random.Random, found: list[Event], lane: int) -> Iterator[Transaction]:
    of_lane = [event for event in found if int(event.key.partition("-")[2]) % LANES == lane]
    while of_lane:
        size = chosen.randint(1, _TOGETHER)
        yield Transaction(of_lane[:size])
        of_lane = of_lane[size:]
