"""Events to try the outbox with: payments for a few cars."""

from collections.abc import Iterator
from decimal import Decimal
from random import SystemRandom
from typing import Final
from uuid import uuid4

_CARS: Final = 5
_random: Final = SystemRandom()


def sample_events(count: int) -> Iterator[bytes]:
    """Make `count` new events as JSON, each with a random id and one of five cars."""
    from dsql_outbox.outbox import Entity, Event  # noqa: PLC0415 - slow to import

    for _ in range(count):
        car = f"CAR-{_random.randint(1, _CARS)}"
        amount = str(Decimal(_random.randint(10_000, 90_000)) / 100)
        entities = [
            Entity("LoanPayment", f"PAY-{uuid4()}", {"carId": car, "amount": amount}),
            Entity("Car", car, {"lastPayment": amount}),
        ]
        yield Event.new("Loan Payment Submitted", "LoanPaymentSubmitted", entities).to_json()
