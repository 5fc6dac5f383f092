"""The door of SQLAlchemy: an order by the ORM and an event, in one transaction.

Bare is the same session on the engine of the caller, without a retry. So the event is
written by `append_to` on psycopg's connection.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from benchmarks.doors.line import Line
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dsql_outbox import AsyncWriter, Database, Entity, Event, Writer
from dsql_outbox.doors.sqlalchemy import transact

_AS_ON_DSQL: Final = {"prepare_threshold": None}
"""psycopg sends DEALLOCATE for the statements that it prepares, which Aurora DSQL refuses.

The connections of a writer prepare none in a transaction either.
"""


class Base(DeclarativeBase):
    """The models."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


def placed(order: Order) -> Event:
    return Event.new("Order Placed", "OrderPlaced", [Entity("Order", str(order.id))])


@contextmanager
def lines(url: str) -> Iterator[Iterator[Line]]:
    target = url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(target, connect_args=_AS_ON_DSQL)
    Base.metadata.create_all(engine)
    with Writer(Database(url)) as writer:
        yield chain(_sync_lines(writer, sessionmaker(engine)), _async_lines(url, target))
    engine.dispose()


def _sync_lines(writer: Writer, sessions: sessionmaker[Session]) -> Iterator[Line]:
    def add(session: Session) -> Order:
        session.add(order := Order(item="book"))
        session.flush()
        return order

    def bare() -> None:
        with sessions.begin() as session:
            order = add(session)
            connection: Any = session.connection().connection.driver_connection
            writer.append_to(connection, placed(order))

    def joined() -> None:
        with sessions.begin() as session:
            writer.append_to(session, placed(add(session)))

    def unit() -> None:
        transact(writer, sessions, lambda session, append: append(placed(add(session))))

    yield Line("sqlalchemy: append_to(session)", bare, joined)
    yield Line("sqlalchemy: transact", bare, unit)


def _async_lines(url: str, target: str) -> Iterator[Line]:
    loop = asyncio.new_event_loop()
    engine = create_async_engine(target, connect_args=_AS_ON_DSQL)
    sessions = async_sessionmaker(engine)
    writer = AsyncWriter(Database(url))

    async def add(session: AsyncSession) -> Order:
        session.add(order := Order(item="book"))
        await session.flush()
        return order

    async def bare() -> None:
        async with sessions.begin() as session:
            order = await add(session)
            connection: Any = await (await session.connection()).get_raw_connection()
            await writer.append_to(connection.driver_connection, placed(order))

    async def unit() -> None:
        async def place(session: AsyncSession, append: Any) -> None:
            await append(placed(await add(session)))

        await transact(writer, sessions, place)

    yield Line(
        "sqlalchemy: async transact",
        lambda: loop.run_until_complete(bare()),
        lambda: loop.run_until_complete(unit()),
    )
    loop.run_until_complete(engine.dispose())
    loop.run_until_complete(writer.close())
    loop.close()
