"""The demo's workload: 20 events, 5 of each of four types, written by 4 workers at once.

In the shape `distinct` every event has an entity of its own and refers to others
only by attributes. In the shape `hot` the workers share 5 cars: the four events
of a turn have the same car as their subject, so their transactions conflict.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from dsql_outbox.outbox import Entity, Event

Shape = Literal["distinct", "hot"]

SHAPES: Final[tuple[Shape, ...]] = ("distinct", "hot")
TURNS: Final = 5


@dataclass(frozen=True)
class EventType:
    """One of the four types of events; `attributes` makes those of its entity in turn n."""

    event_name: str
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
    EventType("Car Created", "CarCreated", "Car", "CAR", _car),
    EventType("Loan Created", "LoanCreated", "Loan", "LOAN", _loan),
    EventType("Loan Payment Submitted", "LoanPaymentSubmitted", "LoanPayment", "PAY", _payment),
    EventType("Car Service Done", "CarServiceDone", "ServiceRecord", "SRV", _service),
)


def make_event(kind: EventType, shape: Shape, run: str, turn: int) -> Event:
    """The event of one type in one turn; `run` makes its entity ids unique to this run."""
    car = f"CAR-{run}-{turn}"
    own_id = f"{kind.prefix}-{run}-{turn}"
    own = Entity(kind.entity_type, own_id, kind.attributes(car, turn))
    if shape == "distinct" or kind.entity_type == "Car":
        return Event.new(kind.event_name, kind.event_type, [own])
    shared = Entity("Car", car, {"lastEvent": kind.event_type})
    return Event.new(kind.event_name, kind.event_type, [shared, own])
