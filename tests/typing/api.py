"""The public API as its users write it. Nobody runs this; mypy and basedpyright read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type
from uuid import UUID

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import asyncpg.pool  # pyright: ignore[reportMissingTypeStubs]
import msgspec
import psycopg
import psycopg2.extensions
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import dsql_outbox
from dsql_outbox import (
    AsyncTransaction,
    AsyncWriter,
    Database,
    DuplicateEvent,
    Entity,
    Event,
    EventTooLarge,
    InvalidEvent,
    JsonEvent,
    Message,
    MissingExtra,
    OutboxError,
    OutcomeUnknown,
    Publisher,
    PublisherSettings,
    Receipt,
    StaleVersion,
    StoredEntity,
    StoredEvent,
    TopicSettings,
    Touched,
    Transaction,
    Writer,
    WriterSettings,
    http_status,
    is_retryable,
    open_sink,
    transact,
)
from dsql_outbox.inbox import AsyncInbox, Handled, Inbox, Received
from dsql_outbox.inbox.memory import Order
from dsql_outbox.publisher import Retry
from dsql_outbox.testing import EmbeddedPostgres, Faults, MemorySink

URL = "postgresql://localhost/loans"


def new_event() -> Event:
    loan = Entity("Loan", "LOAN-7", {"balance": "9000.00", "paid": 3})
    return Event.new("LoanCreated", [loan], name="Loan Created")


@dataclass
class Loan:
    balance: str


class LoanModel(BaseModel):
    balance: str


class LoanStruct(msgspec.Struct):
    balance: str


def modelled_entities() -> list[Entity]:
    return [
        Entity("Loan", "LOAN-1", Loan("9000.00")),
        Entity("Loan", "LOAN-2", LoanModel(balance="9000.00")),
        Entity("Loan", "LOAN-3", LoanStruct("9000.00")),
    ]


def answers(receipt: Receipt, error: OutboxError) -> tuple[dict[str, Any], dict[str, Any]]:
    return receipt.to_dict(), error.to_dict()


async def async_producer(data: bytes, wire: Mapping[str, Any]) -> None:
    settings = WriterSettings(max_retries=5)
    async with AsyncWriter(Database(URL), settings) as writer:
        receipt = await writer.write(new_event(), timeout=2.5)
        assert_type(receipt, Receipt)
        assert_type(receipt.event_id, UUID)
        assert_type(receipt.entities, tuple[Touched, ...])
        await writer.write(data, on_duplicate="return")
        await writer.write(wire)
        await writer.write(JsonEvent(data, topic="loans.vip", headers={"tenant": "acme"}))


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


async def coalescing_producer(data: bytes) -> None:
    settings = WriterSettings(coalesce=4)
    async with AsyncWriter(Database(URL), settings) as writer:
        assert_type(await writer.write(data, expected_version=3), Receipt)
        outcomes = await writer.write_many([data, new_event()], expected_versions=[0, None])
        assert_type(outcomes, list[Receipt | Exception])


async def async_transaction(mine: psycopg.AsyncConnection[Any]) -> None:
    async def pay(transaction: AsyncTransaction) -> Receipt:
        await transaction.connection.execute("UPDATE loans SET balance = balance - 100")
        event = Event.new("LoanPaid", [Entity("Loan", "LOAN-7")])
        assert_type(event, Event)
        return await transaction.append(event, expected_version=3)

    async with AsyncWriter(Database(URL)) as writer:
        assert_type(await writer.transact(pay, timeout=2.5), Receipt)
        assert_type(await writer.append_to(mine, new_event()), Receipt)
        async for stored in writer.stream("Loan", "LOAN-7", after=12):
            assert_type(stored, StoredEvent)
        assert_type(await writer.entity("Loan", "LOAN-7"), StoredEntity | None)


def sync_transaction(mine: psycopg.Connection[Any]) -> None:
    def pay(transaction: Transaction) -> int:
        transaction.connection.execute("UPDATE loans SET balance = balance - 100")
        assert_type(transaction.entity("Loan", "LOAN-7"), StoredEntity | None)
        Event.new("B", [Entity("Loan", "LOAN-7")], name="A", topic="a", headers={"b": "c"})
        return transaction.append(new_event()).position

    with Writer(Database(URL)) as writer:
        try:
            assert_type(writer.transact(pay), int)
            assert_type(writer.transact(pay, on_duplicate="return"), int | Receipt)
        except psycopg.Error as error:
            assert_type(is_retryable(error), bool)
        assert_type(writer.append_to(mine, new_event(), expected_version=0), Receipt)
        for stored in writer.stream("Loan", "LOAN-7"):
            assert_type((stored.version, stored.data), tuple[int, str])
        if (loan := writer.entity("Loan", "LOAN-7")) is not None:
            writer.write(new_event(), expected_version=loan.version)


async def with_async_sqlalchemy(
    sessions: async_sessionmaker[AsyncSession], connection: AsyncConnection
) -> None:
    async def pay(session: AsyncSession) -> int:
        event = Event.new("LoanPaid", [Entity("Loan", "LOAN-7")])
        return (await writer.append_to(session, event, expected_version=3)).position

    async with AsyncWriter(Database(URL)) as writer, sessions() as session:
        assert_type(await transact(writer, sessions, pay, timeout=2.5), int)
        assert_type(await writer.append_to(session, new_event()), Receipt)
        assert_type(await writer.append_to(connection, new_event()), Receipt)
        assert_type(await AsyncInbox(Database(URL), "mailer").remember(session, "a"), Order | None)
        await writer.append_to(Session(), new_event())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def with_sqlalchemy(
    sessions: sessionmaker[Session], connection: Connection, scoped: scoped_session[Session]
) -> None:
    def pay(session: Session) -> Receipt:
        return writer.append_to(session, Event.new("LoanPaid", [Entity("Loan", "LOAN-7")]))

    with Writer(Database(URL)) as writer, sessions() as session:
        assert_type(transact(writer, sessions, pay), Receipt)
        assert_type(transact(writer, sessions, pay, on_duplicate="return"), Receipt)
        transact(writer, sessions, lambda connection: connection.pgconn)  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
        assert_type(writer.append_to(session, new_event()), Receipt)
        assert_type(writer.append_to(connection, new_event()), Receipt)
        assert_type(writer.append_to(scoped, new_event()), Receipt)
        assert_type(Inbox(Database(URL), "mailer").remember(session, "a"), Order | None)
        Inbox(Database(URL), "mailer").remember(AsyncSession(), "a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        writer.append_to(AsyncSession(), new_event())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def with_asyncpg(
    connection: asyncpg.Connection, lent: asyncpg.pool.PoolConnectionProxy
) -> None:
    async with AsyncWriter(Database(URL)) as writer:
        assert_type(await writer.append_to(connection, new_event()), Receipt)
        assert_type(
            await AsyncInbox(Database(URL), "mailer").remember(connection, "a"), Order | None
        )
        assert_type(await writer.append_to(lent, new_event()), Receipt)


def with_psycopg2(connection: psycopg2.extensions.connection) -> None:
    with Writer(Database(URL)) as writer, connection:
        assert_type(writer.append_to(connection, new_event()), Receipt)


def with_pool(pool: ConnectionPool[psycopg.Connection[Any]]) -> None:
    def pay(connection: psycopg.Connection[Any]) -> int:
        return writer.append_to(connection, new_event()).position

    with Writer(Database(URL)) as writer:
        assert_type(transact(writer, pool, pay, entities=[("Loan", "LOAN-7")]), int)
        assert_type(transact(writer, pool, pay, on_duplicate="return"), int | Receipt)


async def with_async_pool(pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]]) -> None:
    async def pay(connection: psycopg.AsyncConnection[Any]) -> Receipt:
        return await writer.append_to(connection, new_event())

    async with AsyncWriter(Database(URL)) as writer:
        assert_type(await transact(writer, pool, pay, timeout=2.5), Receipt)


async def tests_of_a_user() -> None:
    with EmbeddedPostgres() as server, Faults() as faults:
        assert_type(server.url, str)
        faults.conflicts(2)
        faults.lost_commit()
        faults.refuse(3, sqlstate="23514")
    sink = MemorySink()
    sink.fail(new_event().id, Retry("not yet"), stored=True)
    await Publisher(Database(URL), sink).run(until_empty=True)
    assert_type(await sink.published(1, timeout=2.5), list[Message])
    assert_type(sink.wait_published(1), list[Message])


async def relay() -> None:
    try:
        async with open_sink("nats://localhost:4222?stream=EVENTS") as sink:
            await Publisher(
                Database(URL),
                sink,
                PublisherSettings(topics={"a.*": TopicSettings(attempts=3)}),
            ).run()
    except MissingExtra as error:
        assert_type(error.extra, str)


def version() -> None:
    assert_type(dsql_outbox.__version__, str)


def mistakes_that_checkers_find() -> None:
    assert dsql_outbox.no_such  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    Event.new("Loan Paid", "LoanPaid", [Entity("Loan", "LOAN-7")])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Event.new("LoanPaid", ["LOAN-7"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    Entity("Loan", "LOAN-7", ["balance"])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    WriterSettings(5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def bill(session: Session, message: Received) -> int:
    session.add(message)
    return message.position


def consume(given: Inbox, message: Received) -> None:
    """An inbox without arguments has connections of its own."""
    assert_type(given.once(message, lambda connection: connection.closed), Handled[bool])
    with Inbox(Database(URL), "billing", sessions=sessionmaker()) as inbox:
        assert_type(inbox, Inbox[Session])
        assert_type(inbox.once_many([message], bill), list[Handled[int] | Exception])
        Inbox(Database(URL), "billing").once_many([message], bill)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(URL)
    with Inbox(Database(URL), "billing", sessions=pool) as of_pool:
        assert_type(of_pool.once(message, lambda own: own.closed), Handled[bool])


async def consume_async(given: AsyncInbox, message: Received) -> None:
    async def invoice(session: AsyncSession) -> str:
        return str(await session.scalar(session.info["query"]))

    async def count(connection: psycopg.AsyncConnection[Any], message: Received) -> int:
        await connection.execute("SELECT 1")
        return message.position

    sessions = async_sessionmaker(class_=AsyncSession)
    async with AsyncInbox(Database(URL), "billing", sessions=sessions) as inbox:
        assert_type(await inbox.once(message, invoice), Handled[str])
    async with AsyncConnectionPool(URL) as pool:
        of_pool = AsyncInbox(Database(URL), "billing", sessions=pool)
        assert_type(await of_pool.once_many([message], count), list[Handled[int] | Exception])
        assert_type(await given.once_many([message], count), list[Handled[int] | Exception])
