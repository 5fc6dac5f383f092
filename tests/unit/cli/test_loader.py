"""How events are shared out: in order per subject, and no faster than they are stored."""

import json
from collections.abc import AsyncGenerator, Sequence
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from psycopg import errors

from dsql_outbox.cli.write.inputs import InputLocation, Inputs, Record
from dsql_outbox.cli.write.loader import Loader
from dsql_outbox.cli.write.report import Reporter, Tally
from dsql_outbox.outbox import OutcomeUnknown, ParsedEvent, Receipt, SchemaError

pytestmark = pytest.mark.anyio


class EndlessInput(Inputs):
    """Events about two cars by turns, and how many were taken."""

    def __init__(self) -> None:
        super().__init__([])
        self.taken = 0

    async def records(self) -> AsyncGenerator[Record]:
        while True:
            self.taken += 1
            entity = {"entityHeader": {"entityType": "Car", "entityId": str(self.taken % 2)}}
            header = {"uuid": str(uuid4()), "eventName": "Moved"}
            data = json.dumps({"eventHeader": header, "entities": [entity]}).encode()
            yield Record(InputLocation("endless", self.taken, 0), data)


class Database:
    """Keeps every event waiting until the gate is opened."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.begun: list[tuple[str, UUID]] = []
        self.batches: list[int] = []

    async def write(self, events: Sequence[ParsedEvent]) -> list[Receipt]:
        self.begun += [(event.touches[0].entity_id, event.id) for event in events]
        self.batches.append(len(events))
        await self.gate.wait()
        return [Receipt(event.id, "committed", 1, 0, 1, ()) for event in events]


class Printed(Reporter):
    """Keeps receipts instead of printing them."""

    def __init__(self) -> None:
        super().__init__(Tally(), None)
        self.receipts: list[UUID] = []

    async def failed(self, place: InputLocation, event_id: UUID | None, error: Exception) -> None:
        """Failures are not looked at here."""

    async def stored(self, receipts: Sequence[Receipt]) -> None:
        self.receipts += [receipt.event_id for receipt in receipts]


def subjects(begun: Sequence[tuple[str, UUID]]) -> set[str]:
    return {subject for subject, _ in begun}


async def test_reading_waits_for_storing_and_what_was_read_is_stored_after_a_stop() -> None:
    database, source, printed = Database(), EndlessInput(), Printed()
    storing = Loader(database.write, source, printed, 8)
    async with anyio.create_task_group() as group:
        group.start_soon(storing.run)
        await anyio.wait_all_tasks_blocked()
        taken = source.taken
        assert 10 < taken < 40, "one in hand and a short queue for each worker"
        assert len(database.begun) == len(subjects(database.begun)) <= 2
        storing.stop()
        database.gate.set()
    assert source.taken == taken
    assert len(printed.receipts) == taken
    assert storing.stop_line() == f"stopped after record {taken} of endless"


async def test_after_a_cancellation_the_first_event_not_known_to_be_stored_is_named() -> None:
    database, source = Database(), EndlessInput()
    storing = Loader(database.write, source, Printed(), 2)
    async with anyio.create_task_group() as group:
        group.start_soon(storing.run)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert storing.stop_line() == (
        "stopped; write again from record 1 of endless, with --on-duplicate return"
    )


async def test_stopped_before_anything_was_read_it_says_so() -> None:
    storing = Loader(Database().write, EndlessInput(), Printed(), 1)
    storing.stop()
    await storing.run()
    assert storing.stop_line() == "stopped before the first record"


async def test_the_subject_picks_the_worker_so_two_subjects_can_go_at_a_time() -> None:
    """With one worker there is one event in hand, with many one for each subject."""
    for workers, at_a_time in ((1, 1), (8, 2)):
        database = Database()
        storing = Loader(database.write, EndlessInput(), Printed(), workers)
        async with anyio.create_task_group() as group:
            group.start_soon(storing.run)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert len(database.begun) == at_a_time


async def test_a_batch_takes_what_has_been_read_and_no_more_than_asked() -> None:
    """The workers start at once; while they wait, the reader fills the next batches."""
    database, source, printed = Database(), EndlessInput(), Printed()
    storing = Loader(database.write, source, printed, 2, batch=50)
    async with anyio.create_task_group() as group:
        group.start_soon(storing.run)
        await anyio.wait_all_tasks_blocked()
        assert 50 < source.taken <= 2 * (50 + 50) + 1
        storing.stop()
        database.gate.set()
    assert max(database.batches) == 50
    assert len(printed.receipts) == source.taken


@pytest.mark.parametrize("cause", [psycopg.OperationalError("gone"), errors.AdminShutdown("gone")])
async def test_a_doubt_that_an_outage_left_ends_the_run_and_is_to_be_written_again(
    cause: psycopg.Error,
) -> None:
    """The next event would wait for the same outage."""
    batches: list[int] = []

    async def write(events: Sequence[ParsedEvent]) -> list[Receipt | Exception]:
        batches.append(len(events))
        assert len(batches) == 1
        unknown = OutcomeUnknown(events[0].id)
        unknown.__cause__ = cause
        return [unknown] * len(events)

    storing = Loader(write, EndlessInput(), Printed(), 1, batch=5)
    await storing.run()
    assert storing.stop_line() == (
        "stopped: the database cannot be reached; "
        "write again from record 1 of endless, with --on-duplicate return"
    )


async def test_a_defect_ends_the_run_with_its_own_exception() -> None:
    async def write(events: Sequence[ParsedEvent]) -> list[Receipt | Exception]:
        return [ZeroDivisionError()] * len(events)

    with pytest.raises(ExceptionGroup) as raised:
        await Loader(write, EndlessInput(), Printed(), 1).run()
    assert raised.group_contains(ZeroDivisionError)


async def test_missing_tables_end_the_run_at_once() -> None:
    batches: list[int] = []

    async def write(events: Sequence[ParsedEvent]) -> list[Receipt | Exception]:
        batches.append(len(events))
        assert len(batches) == 1, "no other event would fare better"
        return [SchemaError("no tables")] * len(events)

    storing = Loader(write, EndlessInput(), Printed(), 1)
    await storing.run()
    assert isinstance(storing.schema_error, SchemaError)
    assert "the tables are missing; write again from record 1 of" in str(storing.stop_line())
