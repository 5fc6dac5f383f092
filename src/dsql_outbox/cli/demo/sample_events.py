"""Events about cars, which `demo` writes.

In the shape `distinct` every event has an entity of its own and refers to others
only by attributes. In the shape `hot` the subject of every event is a car. Events with the
same car conflict when they are written at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from dsql_outbox.outbox.event.event import Entity, Event

Shape = Literal["distinct", "hot"]

SHAPES: Final[tuple[Shape, ...]] = ("distinct", "hot")


@dataclass(frozen=True)
class EventType:
    """One of the four types of events; `attributes` makes those of its entity from a number."""

    event_type: str
    entity_type: str
    prefix: str
    attributes: Callable[[str, int], dict[str, object]]


def _car(_: str, n: int) -> dict[str, object]:
    return {"make": "Volkswagen", "model": "Golf", "year": 2020 + n, "mileage": 1_000 * n}


def _loan(car: str, n: int) -> dict[str, object]:
    return {"carId": car, "loanAmount": f"{20_000 + n}.00", "termMonths": 48, "status": "active"}


def _payment(car: str, n: int) -> dict[str, object]:
    return {"carId": car, "amount": f"{400 + n}.27"}


def _service(car: str, n: int) -> dict[str, object]:
    return {"carId": car, "amountPaid": f"{180 + n}.40", "description": "Annual inspection"}


EVENT_TYPES: Final = (
    EventType("CarCreated", "Car", "CAR", _car),
    EventType("LoanCreated", "Loan", "LOAN", _loan),
    EventType("LoanPaymentSubmitted", "LoanPayment", "PAY", _payment),
    EventType("CarServiceDone", "ServiceRecord", "SRV", _service),
)


def make_event(kind: EventType, shape: Shape, key: str, n: int) -> Event:
    """An event of one type. `key` makes the ids of its entity and of its car."""
    car_id = f"CAR-{key}"
    own = Entity(kind.entity_type, f"{kind.prefix}-{key}", kind.attributes(car_id, n))
    if shape == "distinct" or kind.entity_type == "Car":
        return Event.new(kind.event_type, [own])
    shared = Entity("Car", car_id, {"lastEvent": kind.event_type})
    return Event.new(kind.event_type, [shared, own])
