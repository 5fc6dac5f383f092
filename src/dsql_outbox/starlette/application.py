"""The lifespan of an application, what its requests ask for, and its error answers."""

import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import psycopg

from dsql_outbox.observability.hooks import Hook
from dsql_outbox.operations.health import Ready
from dsql_outbox.operations.health_probe import DatabaseProbe
from dsql_outbox.outbox.arguments import given_hooks, given_settings
from dsql_outbox.outbox.database.database import Database, require_database
from dsql_outbox.outbox.errors import MissingExtra, OutboxError, SettingsError
from dsql_outbox.outbox.failure import RACES, kind_of
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.publisher.message_map import MessageMap, require_map
from dsql_outbox.publisher.relay.applier import Apply
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.kept_sink import SinkSource, sink_factory
from dsql_outbox.writer.async_writer import AsyncWriter
from dsql_outbox.writer.http_status import http_status
from dsql_outbox.writer.settings import WriterSettings

from .background_publisher import BackgroundPublisher

try:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import JSONResponse, Response
except ModuleNotFoundError as error:
    raise MissingExtra("starlette", "dsql_outbox.starlette") from error

PROBLEM_JSON: Final = "application/problem+json"
"""The media type of error answers (RFC 9457)."""

# The problems of errors whose own text may name hosts or quote values.
_EXHAUSTED: Final = {
    "type": "urn:dsql-outbox:ConflictsExhausted",
    "title": "Conflicts exhausted",
    "detail": "other requests changed the same data at the same time, each time that this write "
    "was tried: it is not stored, send it again after the seconds of Retry-After",
}
_OUTCOME_UNKNOWN: Final = {
    "type": "urn:dsql-outbox:OutcomeUnknown",
    "title": "Outcome unknown",
    "detail": "the time was over before the outcome was known, so the event may or may not be "
    "stored: send it again with the same id",
}
_OUT_OF_REACH: Final = {
    "type": "about:blank",
    "title": HTTPStatus.SERVICE_UNAVAILABLE.phrase,
    "detail": "the database cannot take this request now, send it again later",
}

_LATEST_RETRY: Final = 4  # seconds

_STATE: Final = "dsql_outbox"
"""The name in the state of a request."""


class _Running(NamedTuple):
    """The objects that the lifespan of an application opened."""

    writer: AsyncWriter
    publisher: BackgroundPublisher | None
    database: DatabaseProbe


class Outbox:
    """The writer of an application and, with `sink` or `apply`, its publisher.

    The constructor does no I/O. `settings` are those of the writer, `publisher` those of
    the publisher. `sink`, `map`, `apply` and `target` are those of `Publisher`.
    Each of the `hooks` receives every fact of both.

    Every process of a server runs its own publisher; publishers share the work.

    Raises `TypeError` for an argument of a wrong type, and `SettingsError` for settings of a
    publisher that has nothing to do.
    """

    def __init__(  # noqa: PLR0913 - the arguments of a writer and of a publisher
        self,
        database: Database,
        settings: WriterSettings | None = None,
        *,
        sink: SinkSource | None = None,
        publisher: PublisherSettings | None = None,
        map: MessageMap | None = None,  # noqa: A002 - as `Publisher` calls it
        apply: Apply | None = None,
        target: str = DEFAULT_TARGET,
        hooks: Iterable[Hook] = (),
    ) -> None:
        require_database("Outbox", database)
        if sink is not None and not isinstance(sink, str):  # a wrong URL ends the start
            sink_factory("Outbox", sink)
        if map is not None:
            require_map("Outbox", map)
        self._database = database
        self._settings = given_settings("Outbox", settings, WriterSettings)
        self._sink = sink
        self._map = map
        self._apply = apply
        self._target = target
        self._relays = sink is not None or apply is not None
        if publisher is not None and not self._relays:
            raise SettingsError("Outbox has settings of a publisher, but no sink= and no apply=")
        self._publisher = given_settings("Outbox.publisher", publisher, PublisherSettings)
        self._hooks = given_hooks("Outbox", hooks)

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncGenerator[dict[str, Any]]:
        """Open writer and publisher, and yield the state that requests see.

        Give it to the application: ``Starlette(lifespan=outbox.lifespan)``. Within a
        lifespan of your own, yield this state too. At the end, the calls of the writer end
        first, then those of the sink.

        Raises at the start the errors that waiting does not cure: `SettingsError`,
        `MissingExtra`, `SchemaError`. A broker or database that is out of reach does not
        prevent the start.
        """
        async with AsyncExitStack() as stack:
            publisher = self._new_publisher()
            hooks = list(self._hooks)
            if publisher is not None:
                await stack.enter_async_context(publisher.running())
                hooks.append(publisher.doorbell)
            probe = DatabaseProbe(self._database)
            stack.callback(probe.close)
            writer = AsyncWriter(self._database, self._settings, hooks=hooks)
            yield {_STATE: _Running(await stack.enter_async_context(writer), publisher, probe)}

    def _new_publisher(self) -> BackgroundPublisher | None:
        if not self._relays:
            return None
        return BackgroundPublisher(
            self._database,
            self._sink,
            self._publisher,
            map=self._map,
            apply=self._apply,
            target=self._target,
            hooks=self._hooks,
        )


async def outbox_writer(connection: HTTPConnection) -> AsyncWriter:
    """Return the writer of the application that serves a request or WebSocket.

    Raises `SettingsError` if the lifespan of the application has not opened one.
    """
    return _running(connection).writer


async def outbox_ready(connection: HTTPConnection) -> Ready:
    """Return whether waiting messages are being relayed; without a publisher, ask the database.

    The database is asked at most once per second, on a connection of its own. Raises
    `SettingsError` if the lifespan of the application has not opened an outbox.
    """
    running = _running(connection)
    if running.publisher is not None:
        return running.publisher.ready()
    database = await running.database.state()
    is_ready = database == "ok"
    summary = f"No publisher runs here, and the database {'answers' if is_ready else database}."
    return Ready(is_ready, summary, database, "no publisher", "no publisher")


async def readyz(request: Request) -> Response:
    """An endpoint: 200 if the application is ready as `outbox_ready` says, else 503."""
    found = await outbox_ready(request)
    status = HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({name: getattr(found, name) for name in found.__struct_fields__}, status)


def install_error_handlers(
    app: Starlette, *more: type[Exception], exhausted: int = HTTPStatus.SERVICE_UNAVAILABLE
) -> None:
    """Answer the errors of a write by `http_status`, as problem details (RFC 9457).

    These are the errors of this library and of psycopg; name `more`, such as SQLAlchemy's
    ``DBAPIError``, or ``TimeoutError`` if you put ``asyncio.timeout`` around a write.
    `exhausted` (503 or 500) is the answer when conflicts outlast the retries. An answer has a
    Retry-After header if a retry makes sense. Any other error stays an error of the
    application, a 500 with a traceback in its log.
    """
    for kind in (OutboxError, psycopg.Error, *more):
        app.add_exception_handler(kind, partial(_answer, exhausted))


async def _answer(exhausted: int, _request: Request, error: Exception) -> Response:
    status, retry_after = http_status(error, exhausted=exhausted)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and retry_after is None:
        raise error
    if isinstance(error, OutboxError):
        problem = error.to_dict()
    elif isinstance(error, TimeoutError):
        problem = _OUTCOME_UNKNOWN
    elif kind_of(error) in RACES:
        problem = _EXHAUSTED
        # All losers of one race would come back together.
        retry_after = random.randint(1, _LATEST_RETRY)  # noqa: S311 - no secret
    else:
        problem = _OUT_OF_REACH
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse({**problem, "status": status}, status, headers, PROBLEM_JSON)


def _running(connection: HTTPConnection) -> _Running:
    found = getattr(connection.state, _STATE, None)
    if isinstance(found, _Running):
        return found
    raise SettingsError(
        "the application has no outbox: give it lifespan=Outbox(database, ..).lifespan, yield its "
        "state from a lifespan of your own, and run the lifespan in tests: with TestClient(app)"
    )
