"""Events are stored in the order of input, and read no faster than they are stored."""

import json
from collections.abc import AsyncGenerator, Sequence
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from psycopg import errors

from dsql_outbox.cli.write.inputs import Inputs, Line
from dsql_outbox.cli.write.loader import Loader
from dsql_outbox.cli.write.report import Reporter, Tally
from dsql_outbox.outbox import OutcomeUnknown, Receipt, SchemaError
from dsql_outbox.outbox.event.event_parser import ParsedEvent

pytestmark = pytest.mark.anyio


class EndlessInput(Inputs):
    """Parts of five lines, and how many lines were taken."""

    def __init__(self) -> None:
        super().__init__([])
        self.taken = 0

    async def lines(self) -> AsyncGenerator[Sequence[Line]]:
        while True:
            self.taken += 5
            yield [self._line(n) for n in range(self.taken - 4, self.taken + 1)]

    def _line(self, number: int) -> Line:
        entity = {"entityHeader": {"entityType": "Car", "entityId": str(number)}}
        header = {"uuid": str(uuid4()), "eventName": "Moved"}
        data = json.dumps({"eventHeader": header, "entities": [entity]}).encode()
        return Line("endless", number, data)


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

    async def failed(self, line: Line, event_id: UUID | None, error: Exception) -> None:
        """Failures are not looked at here."""

    async def stored(self, receipts: Sequence[Receipt]) -> None:
        self.receipts += [receipt.event_id for receipt in receipts]


async def test_reading_waits_for_storing_and_what_was_read_is_stored_after_a_stop() -> None:
    database, source, printed = Database(), EndlessInput(), Printed()
    storing = Loader(database.write, source, printed, batch=2)
    async with anyio.create_task_group() as group:
        group.start_soon(storing.run)
        await anyio.wait_all_tasks_blocked()
        assert source.taken == 5
        assert [subject for subject, _ in database.begun] == ["1", "2"]
        storing.stop()
        database.gate.set()
    assert source.taken == 5
    assert database.batches == [2, 2, 1]
    assert printed.receipts == [event_id for _, event_id in database.begun]
    assert storing.stop_line() == "stopped after line 5 of endless"


async def test_after_a_cancellation_the_first_event_not_known_to_be_stored_is_named() -> None:
    database, source = Database(), EndlessInput()
    storing = Loader(database.write, source, Printed(), batch=2)
    async with anyio.create_task_group() as group:
        group.start_soon(storing.run)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert storing.stop_line() == (
        "stopped; write again from line 1 of endless, with --on-duplicate return"
    )


async def test_stopped_before_anything_was_read_it_says_so() -> None:
    storing = Loader(Database().write, EndlessInput(), Printed(), batch=1)
    storing.stop()
    await storing.run()
    assert storing.stop_line() == "stopped before the first line"


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

    storing = Loader(write, EndlessInput(), Printed(), batch=5)
    await storing.run()
    assert storing.stop_line() == (
        "stopped: the database cannot be reached; "
        "write again from line 1 of endless, with --on-duplicate return"
    )


async def test_a_defect_ends_the_run_with_its_own_exception() -> None:
    async def write(events: Sequence[ParsedEvent]) -> list[Receipt | Exception]:
        return [ZeroDivisionError()] * len(events)

    with pytest.raises(ZeroDivisionError):
        await Loader(write, EndlessInput(), Printed(), batch=1).run()


async def test_missing_tables_end_the_run_at_once() -> None:
    batches: list[int] = []

    async def write(events: Sequence[ParsedEvent]) -> list[Receipt | Exception]:
        batches.append(len(events))
        assert len(batches) == 1, "no other event would fare better"
        return [SchemaError("no tables")] * len(events)

    storing = Loader(write, EndlessInput(), Printed(), batch=1)
    await storing.run()
    assert isinstance(storing.lasting_error, SchemaError)
    assert "the tables are missing; write again from line 1 of" in str(storing.stop_line())
