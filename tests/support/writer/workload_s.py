"""Workload S: 20 events, 5 of each of the 4 types, for 4 workers."""

import json
from collections.abc import Sequence
from uuid import UUID

from dsql_outbox.outbox import Entity, Event

WORKERS = 4
CARS = 5


def car_created(car: str = "CAR-1", *, id: UUID | None = None) -> Event:  # noqa: A002
    """One event with one entity."""
    attributes = {"vin": "WVWZZZ1KZ8W386752", "make": "Volkswagen", "owner": "Ines Okafor"}
    return Event.new("CarCreated", [Entity("Car", car, attributes)], name="Car Created", id=id)


def loan_created(
    n: int = 1,
    *also: Entity,
    id: UUID | None = None,  # noqa: A002
) -> Event:
    """One event with a loan, and with other entities if they are given."""
    loan = Entity("Loan", f"LOAN-{n}", {"carId": f"CAR-{n}", "balance": "21400.50"})
    return Event.new("LoanCreated", [loan, *also], name="Loan Created", id=id)


def payment_submitted(n: int, *also: Entity) -> Event:
    """One event with a payment, and with other entities if they are given."""
    payment = Entity("LoanPayment", f"PAYMENT-{n}", {"loanId": f"LOAN-{n}", "amount": "495.27"})
    return Event.new("LoanPaymentSubmitted", [payment, *also], name="Loan Payment Submitted")


def service_done(n: int, *also: Entity) -> Event:
    """One event with a service record, and with other entities if they are given."""
    record = Entity("ServiceRecord", f"SERVICE-{n}", {"carId": f"CAR-{n}", "amountPaid": 182.4})
    return Event.new("CarServiceDone", [record, *also], name="Car Service Done")


def three_entities() -> Event:
    """One event with three entities."""
    return loan_created(1, Entity("Car", "CAR-1", {"financed": True}), Entity("Owner", "OWNER-1"))


def many_entities(note: str, entities: int = 1_400) -> bytes:
    """One event with a header of this note, which is copied for each of its entities."""
    touched = [Entity("Car", f"CAR-{n}") for n in range(entities)]
    event = json.loads(Event.new("CarsSold", touched, name="Cars Sold").to_json())
    event["eventHeader"]["note"] = note
    return json.dumps(event).encode()


def distinct() -> list[Event]:
    """S-distinct: the ids are linked, and every event has an entity of its own."""
    cars = [car_created(f"CAR-{n}") for n in range(CARS)]
    loans = [loan_created(n) for n in range(CARS)]
    payments = [payment_submitted(n) for n in range(CARS)]
    services = [service_done(n) for n in range(CARS)]
    return [*cars, *loans, *payments, *services]


def hot() -> list[Sequence[Event]]:
    """S-hot, in rounds: the 4 events of a round, one of each type, all touch one car."""
    return [
        (
            car_created(f"CAR-{n}"),
            loan_created(n, car := Entity("Car", f"CAR-{n}", {"round": n})),
            payment_submitted(n, car),
            service_done(n, car),
        )
        for n in range(CARS)
    ]
