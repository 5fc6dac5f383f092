"""The door of FastAPI: an endpoint that gets the writer by the dependency and returns the receipt.

Bare is an endpoint on its own writer, which makes its answer by hand. Requests reach the
application without a network, so that the door is the larger part of the measured time.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
from benchmarks.doors.line import Line
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dsql_outbox import AsyncWriter, Database, Entity, Event, Receipt
from dsql_outbox.doors.fastapi import Outbox, OutboxWriter, install_error_handlers


def created() -> Event:
    return Event.new("Car Created", "CarCreated", [Entity("Car", str(uuid4()), {"make": "VW"})])


def by_hand(writer: AsyncWriter) -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def create(_request: Request) -> JSONResponse:
        receipt = await writer.write(created())
        return JSONResponse({"eventId": str(receipt.event_id), "position": receipt.position})

    return app


def by_the_door() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/")
    async def create(writer: OutboxWriter) -> Receipt:
        return await writer.write(created())

    return app


def with_state(app: ASGIApp, state: dict[str, object]) -> ASGIApp:
    """Give each request the state of the lifespan, as a server does."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return served


@contextmanager
def lines(url: str) -> Iterator[Iterator[Line]]:
    """Open both applications."""
    with asyncio.Runner() as runner:
        database = Database(url)
        writer = AsyncWriter(database)
        lifespan = Outbox(database).lifespan()
        state = runner.run(lifespan.__aenter__())
        bare = sender(runner, by_hand(writer))
        door = sender(runner, with_state(by_the_door(), state))
        yield iter([Line("fastapi: OutboxWriter -> Receipt", bare, door)])
        runner.run(lifespan.__aexit__(None, None, None))
        runner.run(writer.close())


def sender(runner: asyncio.Runner, app: ASGIApp) -> Callable[[], None]:
    """Return a function that sends one request."""
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench")

    async def send() -> None:
        (await client.post("/")).raise_for_status()

    return lambda: runner.run(send())
