"""Random faults under `transact` in sessions of each driver: no false receipt, nothing torn."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_transacts import Own, driver, open_door
from tests.support.writer.transacts import own

from dsql_outbox import Entity, Event, OutcomeUnknown

__all__ = ["driver", "open_door", "own"]

pytestmark = pytest.mark.postgres_only("the sessions of these callers pass the endpoint by")

CALLS: Final = 8

PLACES: Final = ["set_config", "INSERT INTO own", "business_events", "AS kept", "COMMIT"]

Fault = Callable[[PostgresProxy, str, int], object]

FAULTS: Final[list[Fault]] = [
    lambda proxy, place, times: proxy.refuse(times, matching=place),
    lambda proxy, place, times: proxy.refuse(times, matching=place, sqlstate="53300"),
    lambda proxy, place, times: proxy.refuse(times, matching=place, sqlstate="23514"),
    lambda proxy, place, times: proxy.cut("before", times, matching=place),
    lambda proxy, place, times: proxy.cut("after_sent", times, matching=place),
    lambda proxy, place, times: proxy.cut("after_commit", times, matching=place),
    lambda proxy, place, times: proxy.cut("mid_answer", times, matching=place, reset=True),
]


@pytest.mark.parametrize(
    "seed", [n if n < 2 else pytest.param(n, marks=[pytest.mark.slow]) for n in range(12)]
)
def test_each_call_stores_its_row_and_its_event_or_neither(
    open_door: Any, proxy: PostgresProxy, own: Tables, seed: int
) -> None:
    """A call that returned has stored them once, and one that raised has not."""
    chance = random.Random(seed)
    door = open_door(proxy.url, pool_size=1)
    ends: dict[int, str] = {}

    def call(number: int, *, swallows: bool) -> None:
        def function(session: Session, append: Any) -> None:
            session.add(Own(n=number))
            try:
                session.flush()
            except DBAPIError:
                if not swallows:
                    raise
            session.execute(text("SELECT 1"))
            append(Event.new("CarCreated", [Entity("Car", f"CAR-{number}")]))

        door.transact(function)

    for number in range(1, CALLS + 1):
        for _ in range(chance.choice([0, 1, 1, 2])):
            chance.choice(FAULTS)(proxy, chance.choice(PLACES), chance.choice([1, 1, 2]))
        try:
            call(number, swallows=chance.random() < 0.3)
            ends[number] = "returned"
        except OutcomeUnknown:
            ends[number] = "unknown"
        except Exception:  # noqa: BLE001 - whatever it is, nothing may be stored
            ends[number] = "raised"
        proxy.heal()

    rows = Counter(row["n"] for row in own.execute("SELECT n FROM own WHERE n > 0"))
    found = own.execute("SELECT entity_id, version FROM outbox.entities")
    events = Counter({int(row["entity_id"].partition("-")[2]): row["version"] for row in found})
    assert rows == events, "torn"
    for number, end in ends.items():
        wanted = {"returned": [1], "raised": [0], "unknown": [0, 1]}[end]
        assert rows[number] in wanted, (number, ends)
