"""A transaction of a caller on each driver, plain and through SQLAlchemy and Django.

All have one face: plain methods, also for the drivers of asyncio.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

import asyncpg
import psycopg
import psycopg2
from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from .writer.django_connections import new_django_connection

T = TypeVar("T")


class DriverSession(ABC):
    """One transaction after the other on one connection. The first statement begins one."""

    mark: ClassVar = "%s"
    """The place of a parameter in a statement."""

    @abstractmethod
    def __init__(self, url: str) -> None:
        """Connect."""

    @abstractmethod
    def execute(self, query: str, *parameters: object) -> Any:
        """Run a statement, and return the first value of its rows, if it has any."""

    @abstractmethod
    def commit(self) -> None:
        """Commit."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection, also one that was lost."""


def _first_value(cursor: Any) -> Any:
    return cursor.fetchone()[0] if cursor.description else None


class Psycopg(DriverSession):
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)

    def execute(self, query: str, *parameters: object) -> Any:
        return _first_value(self.connection.execute(query.encode(), parameters or None))

    def commit(self) -> None:
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()


class Psycopg2(DriverSession):
    def __init__(self, url: str) -> None:
        self.connection = psycopg2.connect(url)

    def execute(self, query: str, *parameters: object) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(query, parameters or None)
        return _first_value(cursor)

    def commit(self) -> None:
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()


class _OfLoop(DriverSession):
    """A session of asyncio, in an event loop of its own."""

    _loop: asyncio.Runner | None = None

    def start(self, connect: Callable[[], Awaitable[T]]) -> T:
        """Begin a loop, and connect in it."""
        self._loop = asyncio.Runner()
        try:
            return self.run(connect)
        except BaseException:
            self._loop.close()
            raise

    def run(self, act: Callable[[], Awaitable[T]]) -> T:
        """Run an act in the loop."""
        assert self._loop is not None

        async def acting() -> T:
            return await act()

        return self._loop.run(acting())

    @abstractmethod
    async def _end(self) -> None:
        """Close the connection."""

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            try:
                loop.run(self._end())
            finally:
                loop.close()


class Asyncpg(_OfLoop):
    mark = "$1"

    def __init__(self, url: str) -> None:
        self.connection: Any = self.start(lambda: asyncpg.connect(without_options(url)))
        self._transaction: Any = None

    def execute(self, query: str, *parameters: object) -> Any:
        return self.run(lambda: self._execute(query, parameters))

    async def _execute(self, query: str, parameters: tuple[object, ...]) -> Any:
        if self._transaction is None:
            self._transaction = self.connection.transaction()
            await self._transaction.start()
        return await self.connection.fetchval(query, *parameters)

    def commit(self) -> None:
        self.run(self._transaction.commit)
        self._transaction = None

    async def _end(self) -> None:
        await self.connection.close(timeout=5)


class SqlAlchemy(DriverSession):
    driver: ClassVar = "psycopg"

    def __init__(self, url: str) -> None:
        self.engine = create_engine(engine_url(url, self.driver), poolclass=NullPool)
        self.connection: Connection = self.engine.connect()

    def execute(self, query: str, *parameters: object) -> Any:
        result = self.connection.exec_driver_sql(query, parameters or None)
        return result.scalar() if result.returns_rows else None

    def commit(self) -> None:
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()


class SqlAlchemyPsycopg2(SqlAlchemy):
    driver = "psycopg2"


class SqlAlchemyAsync(_OfLoop):
    driver: ClassVar = "psycopg"

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(engine_url(url, self.driver), poolclass=NullPool)
        self.connection = self.start(self._connect)

    async def _connect(self) -> Any:
        return await self.engine.connect()

    def execute(self, query: str, *parameters: object) -> Any:
        return self.run(lambda: self._execute(query, parameters))

    async def _execute(self, query: str, parameters: tuple[object, ...]) -> Any:
        result = await self.connection.exec_driver_sql(query, parameters or None)
        return result.scalar() if result.returns_rows else None

    def commit(self) -> None:
        self.run(self.connection.commit)

    async def _end(self) -> None:
        await self.connection.close()


class SqlAlchemyAsyncpg(SqlAlchemyAsync):
    driver = "asyncpg"
    mark = "$1"


class Django(DriverSession):
    def __init__(self, url: str) -> None:
        self.connection = new_django_connection(url)
        self.connection.set_autocommit(False)

    def execute(self, query: str, *parameters: object) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return _first_value(cursor)

    def commit(self) -> None:
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()


DRIVER_SESSIONS: dict[str, type[DriverSession]] = {
    "psycopg": Psycopg,
    "asyncpg": Asyncpg,
    "psycopg2": Psycopg2,
    "sqlalchemy psycopg": SqlAlchemy,
    "sqlalchemy async psycopg": SqlAlchemyAsync,
    "sqlalchemy asyncpg": SqlAlchemyAsyncpg,
    "sqlalchemy psycopg2": SqlAlchemyPsycopg2,
    "django": Django,
}


def without_options(url: str) -> str:
    """The URL without options of libpq, which asyncpg would send as settings."""
    return urlsplit(url)._replace(query="").geturl()


def engine_url(url: str, driver: str) -> str:
    """The URL of SQLAlchemy for a driver."""
    return unquote(without_options(url)).replace("postgresql://", f"postgresql+{driver}://", 1)
