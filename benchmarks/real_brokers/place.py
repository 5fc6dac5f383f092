"""A broker under test, and its faults: the port of the nemesis to real brokers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from benchmarks.nemesis.check import Delivery
from benchmarks.nemesis.load import digest

from dsql_outbox.testing.sink_contract import Stored

CARS: Final = "events.CarMoved"
"""The topic of most events."""
VANS: Final = "events.VanMoved"
"""The topic of a few events, which faults make unavailable while the other one works."""


@dataclass(frozen=True)
class Fault:
    """A fault of a broker, from entering to leaving `harm`, which may both take seconds."""

    name: str
    harm: Callable[[], AbstractContextManager[None]]
    pauses: str = ""
    """The topic that publishers must pause meanwhile; none by default."""

    @property
    def harms_vans(self) -> bool:
        """Whether vans are to be written while it lasts."""
        return self.pauses == VANS


class Place(Protocol):
    """A broker that runs, as the nemesis sees it."""

    sink: str
    """The URL for publishers."""

    def prepare(self) -> None:
        """Make what publishers need before they can start."""
        ...

    def faults(self) -> Sequence[Fault]:
        """The faults of the broker, in this order."""
        ...

    def delivered(self) -> list[Delivery]:
        """Every message that is there; those of a subject in the broker's order."""
        ...


def delivery(stored: Stored) -> Delivery:
    """A message as the check wants it; no broker here drops duplicates by the time."""
    key, sequence = stored.headers["subject"], int(stored.headers["sequence"])
    return Delivery(stored.event_id, key, sequence, digest(stored.payload), 0.0)
