"""The public API as its users write it. Nobody runs this; mypy and basedpyright read it."""

from collections.abc import Mapping
from typing import Any, assert_type
from uuid import UUID

import dsql_outbox
from dsql_outbox import (
    AsyncWriter,
    Database,
    DuplicateEvent,
    Entity,
    Event,
    EventTooLarge,
    InvalidEvent,
    MissingExtra,
    OutboxError,
    OutcomeUnknown,
    Publisher,
    PublisherSettings,
    Receipt,
    StaleVersion,
    Touched,
    Writer,
    WriterSettings,
    http_status,
    open_sink,
)

URL = "postgresql://localhost/loans"


def new_event() -> Event:
    loan = Entity("Loan", "LOAN-7", {"balance": "9000.00", "paid": 3})
    return Event.new("Loan Created", "LoanCreated", [loan])


async def async_producer(data: bytes, wire: Mapping[str, Any]) -> None:
    settings = WriterSettings(max_retries=5, connections="pool")
    async with AsyncWriter(Database(URL), settings) as writer:
        receipt = await writer.write(new_event(), timeout=2.5)
        assert_type(receipt, Receipt)
        assert_type(receipt.event_id, UUID)
        assert_type(receipt.entities, tuple[Touched, ...])
        await writer.write(data, on_duplicate="return")
        await writer.write(wire)


def sync_producer(text: str) -> int:
    with Writer(Database(URL, schema="loans", isolation="repeatable read")) as writer:
        try:
            assert_type(writer.write(text), Receipt)
        except DuplicateEvent as error:
            assert_type(error.event_id, UUID)
            assert_type(error.same_content, bool)
        except EventTooLarge as error:
            assert_type((error.size, error.limit), tuple[int, int])
        except InvalidEvent as error:
            assert_type((error.path, error.rule), tuple[str, str])
        except StaleVersion as error:
            assert_type((error.expected, error.actual), tuple[int, int])
        except OutcomeUnknown as error:
            assert_type(error.event_id, UUID)
        except OutboxError as error:
            return http_status(error).status
    return 200


async def relay() -> None:
    try:
        async with open_sink("nats://localhost:4222?stream=EVENTS") as sink:
            await Publisher(Database(URL), sink, PublisherSettings(batch_rows=500)).run()
    except MissingExtra as error:
        assert_type(error.extra, str)


def version() -> None:
    assert_type(dsql_outbox.__version__, str)


def mistakes_that_checkers_find() -> None:
    assert dsql_outbox.no_such  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    Event.new("Name", "Type", ["LOAN-7"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    WriterSettings(5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
