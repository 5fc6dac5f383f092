"""The calls of a random schedule, and how each is made: another way to write goes in here."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from time import monotonic
from typing import Any, Final, Literal
from uuid import UUID

import anyio
from sqlalchemy.orm import Session
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database, Entity, Event, OutcomeUnknown, Receipt
from dsql_outbox.outbox.event.event import EventHeader
from dsql_outbox.writer import AsyncTransaction, AsyncWriter, Transaction, Writer, WriterSettings
from dsql_outbox.writer.tuned_settings import TunedSettings

from .callers import outcome_of
from .checked_tables import Outcome
from .consumer_units import ConsumerCall
from .forked_call import in_child
from .poison_events import poison
from .session_kinds import KINDS
from .session_units import Ended, NotStored, SessionCall, Way, random_units

FAULTY: Final = "faulty"
POISONS: Final = ["XX000", "57P01", "P0001", "42501", "53300", "40001"]
EXPECTED: Final = [None, None, None, 0, 1, 2]
CALLS: Final = 3


@dataclass(frozen=True)
class Call:
    """One call of `write_many`, or of `transact` with an append for each event, or many of `write`.

    Each event has a savedDate that no other event has. `is_late`: the function
    given to `transact` returns after the deadline.
    """

    events: list[Event]
    expected: list[int | None]
    on_duplicate: Literal["error", "return"]
    timeout: float | None
    settings: WriterSettings
    is_async: bool
    is_forked: bool
    """It is made in a child, with the writer that the parent has used."""
    is_transact: bool
    is_late: bool
    timeouts: list[float | None]
    """With lanes (`settings.coalesce`), each event is a call of its own with such a timeout."""
    in_session: SessionCall | None = None
    """The events are appended in sessions of the caller."""


def random_calls(random: Random, ways: Sequence[Way] = ()) -> list[Call]:
    """What the callers of a schedule ask for. With `ways`, most of them have sessions."""
    ids = [UUID(int=random.getrandbits(128)) for _ in range(4)]
    calls = [_call(n, ids, random) for n in range(CALLS)]
    return [_in_session(call, ways) for call in calls] if ways else calls


def _in_session(call: Call, ways: Sequence[Way]) -> Call:
    random = Random(call.events[0].id.int + 1)
    if random.random() < 0.2:
        return call
    units = random_units(call.events, call.expected, random)
    way = random.choice(ways)
    settings = call.settings if way.is_async else replace(call.settings, coalesce=0)
    timeout = call.timeout and 5 * call.timeout  # a session is often begun with a connection
    # A caller that commits itself is told by the COMMIT of its own session, which has to be true.
    kinds: list[type[Session]] = [Session, *KINDS]
    commits_itself = way.verb in {"append_to", "remember"}
    kind = Session if commits_itself else random.choice(kinds)
    make = SessionCall if way.verb in {"append_to", "transact"} else ConsumerCall
    made = make(way, units, call.on_duplicate, timeout, settings, kind)
    return replace(call, in_session=made)


def _call(number: int, ids: Sequence[UUID], random: Random) -> Call:
    places = range(random.choice([1, 1, 2, 3, 6]))
    events = [_event(10 * number + place, ids, random) for place in places]
    lanes = Random(events[0].id.int)  # of its own, so the rest of a seed stays as it was
    is_transact = random.random() < 0.25
    if is_transact:  # one transaction takes an id once
        events = list({event.id: event for event in events}.values())
    return Call(
        events=events,
        expected=[None if is_transact else random.choice(EXPECTED) for _ in events],
        on_duplicate=random.choice(["error", "return"]),
        timeout=random.choice([None, None, 0.03, 0.2]),
        settings=TunedSettings(
            timeout=None,
            base=0.001,
            cap=0.01,
            jitter=1.0,
            max_outage=0.2,
            max_retries=random.choice([1, 3, 3]),
            form=random.choice(["single", "plain"]),
            max_connections=lanes.choice([1, 2, 10]),
            coalesce=lanes.choice([0, 1, 2]) if (is_async := random.random() < 0.5) else 0,
        ),
        is_async=is_async,
        is_forked=not is_async and random.random() < 0.3,
        is_transact=is_transact,
        is_late=random.random() < 0.3,
        timeouts=[lanes.choice([None, None, 0.03, 0.2]) for _ in events],
    )


def _event(saved: int, ids: Sequence[UUID], random: Random) -> Event:
    """Some share an id, and half of those the content too."""
    own = UUID(int=random.getrandbits(128))
    event_id = random.choice(ids) if random.random() < 0.3 else own
    names = random.sample(["C-1", "C-2", "C-3"], random.choice([1, 1, 2, 3]))
    name = "Car Sold"
    if (bad := random.random()) < 0.14:
        name = FAULTY if bad < 0.08 else poison(random.choice(POISONS))
    entities = [Entity("Car", car, {"by": saved}) for car in names]
    if event_id is not own and random.random() < 0.5:
        name, entities = "Car Sold", [Entity("Car", "C-1"), Entity("Car", "C-2")]
    return Event(EventHeader(event_id, name, "CarSold", saved_date=saved), tuple(entities))


def run_call(database: Database, url: str, call: Call) -> list[Outcome]:
    """Make the call; returns how each of its events ended."""
    if call.in_session is not None:
        units = call.in_session.units
        ended = zip(units, call.in_session.run(database, url), strict=True)
        return [each for unit, end in ended for each in _of_each(unit.events, end)]
    if call.is_async:
        return anyio.run(_run_async, database, call)
    with Writer(database, call.settings) as writer:
        if not call.is_forked:
            return _call_of_threads(writer, call)
        with suppress(Exception):  # it is there to have a connection, if the faults let it
            writer.transact(lambda _: None, timeout=0.2)
        return in_child(lambda: _call_of_threads(writer, call))


def _call_of_threads(writer: Writer, call: Call) -> list[Outcome]:
    if call.is_transact:
        appended = outcome_of(lambda: writer.transact(_append_all(call), timeout=call.timeout))
        return _of_each(call.events, appended)
    return writer.write_many(
        call.events,
        on_duplicate=call.on_duplicate,
        expected_versions=call.expected,
        timeout=call.timeout,
    )


async def _run_async(database: Database, call: Call) -> list[Outcome]:
    async with AsyncWriter(database, call.settings) as writer:
        if call.is_transact:
            try:
                appended = await writer.transact(_append_all_async(call), timeout=call.timeout)
            except Exception as error:  # noqa: BLE001 - it is compared with the tables
                return _of_each(call.events, error)
            return _of_each(call.events, appended)
        if call.settings.coalesce:
            writes = [
                writer.write(event, on_duplicate=call.on_duplicate, expected_version=n, timeout=t)
                for event, n, t in zip(call.events, call.expected, call.timeouts, strict=True)
            ]
            outcomes: Any = await asyncio.gather(*writes, return_exceptions=True)
            return list(outcomes)
        return await writer.write_many(
            call.events,
            on_duplicate=call.on_duplicate,
            expected_versions=call.expected,
            timeout=call.timeout,
        )


def _append_all(call: Call) -> Callable[[Transaction], list[Receipt]]:
    ends = monotonic() + (call.timeout or 0.0)

    def function(transaction: Transaction) -> list[Receipt]:
        receipts = [transaction.append(event) for event in call.events]
        if call.is_late:
            wait_until(lambda: monotonic() > ends)
        return receipts

    return function


def _append_all_async(call: Call) -> Callable[[AsyncTransaction], Awaitable[list[Receipt]]]:
    ends = monotonic() + (call.timeout or 0.0)

    async def function(transaction: AsyncTransaction) -> list[Receipt]:
        receipts = [await transaction.append(event) for event in call.events]
        if call.is_late:
            await anyio.to_thread.run_sync(wait_until, lambda: monotonic() > ends)
        return receipts

    return function


def _of_each(events: Sequence[Event], ended: Ended) -> list[Outcome]:
    """How each event of a transaction ended; an error that names one is of that one."""
    if not isinstance(ended, Exception):
        return list(ended)
    culprit = getattr(ended, "event_id", None) if not isinstance(ended, OutcomeUnknown) else None
    ids = [event.id for event in events]
    first = ids.index(culprit) if culprit in ids else None  # a unit may have an id several times
    return [ended if first in {None, place} else NotStored() for place in range(len(ids))]
