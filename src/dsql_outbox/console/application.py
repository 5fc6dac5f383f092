"""The application: its pages, behind the guard."""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

import anyio
import psycopg
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Lifespan

from dsql_outbox.operations.jaeger_page import require_base_url
from dsql_outbox.outbox.database.database import Database, require_database
from dsql_outbox.outbox.errors import OutboxError, SettingsError
from dsql_outbox.outbox.settings import require_positive

from . import message_list, record_pages
from .access import LIFETIME, Access
from .console_state import Console, console_of
from .guard import Guard
from .layout import page
from .overview import live, overview
from .problems import database_problem, http_problem, outbox_problem

_FORM_BYTES: Final = 4096


def console_app(  # noqa: PLR0913 - one argument per setting
    database: Database,
    *,
    token: str | None = None,
    open_to_this_machine: bool = False,
    jaeger: str | None = None,
    hosts: Collection[str] = (),
    interval: float = 2.0,
) -> Starlette:
    """Make the console as an ASGI application, to serve or to mount.

    It never changes the database. It does no I/O before its lifespan begins or,
    without one, before the first request.

    A browser must send the `token`. With `open_to_this_machine` in its place, each client of
    this machine is answered without a login: other users, and a proxy on this machine that does
    not mark the requests that it forwards.

    `hosts` are the names, beside those of the loopback, that a request may have in
    its Host header. `jaeger` is the base URL of Jaeger 2, to which the page of an event links.
    `interval` is the time in seconds between two reads of the status.

    Raises `SettingsError` unless exactly one of `token` and `open_to_this_machine` is given, for
    a token of less than 16 characters, a malformed `jaeger`, and an `interval` that is not above
    0.
    """
    require_database("console_app", database)
    if (token is None) is not open_to_this_machine:
        raise SettingsError(
            "the console needs either token=.. or open_to_this_machine=True: without a token, "
            "every user and every proxy of this machine could read all events"
        )
    require_positive("console_app", {"interval": interval})
    if jaeger is not None:
        jaeger = require_base_url(jaeger)
    access = Access(token)
    console = Console(database, access=access, jaeger=jaeger, interval=interval)
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(Guard, hosts=frozenset(hosts), access=access)],
        exception_handlers={
            OutboxError: outbox_problem,
            psycopg.Error: database_problem,
            HTTPException: http_problem,
        },
        lifespan=_lifespan(console),
    )
    app.state.console = console
    return app


def _routes() -> list[Route | Mount]:
    return [
        Route("/", overview),
        Route("/live", live),
        Route("/events", record_pages.search),
        Route("/events/{event_id:uuid}", record_pages.event),
        Route("/entities", record_pages.entity),
        Route("/messages", message_list.messages),
        Route("/login", _login_form),
        Route("/login", _login, methods=["POST"]),
        Mount("/static", StaticFiles(packages=[(__package__ or "", "static")])),
    ]


def _lifespan(console: Console) -> Lifespan[Any]:
    """Also the lifespan of an application in which the console is mounted."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncGenerator[None]:
        console.sampler.start()
        try:
            yield
        finally:
            await console.close()

    return lifespan


async def _login_form(request: Request) -> Response:
    token = request.query_params.get("token")
    if token is None:
        return page(request, "login.html", fault=None)
    return await _log_in(request, token)


async def _login(request: Request) -> Response:
    return await _log_in(request, await _token(request))


async def _log_in(request: Request, token: str) -> Response:
    access = console_of(request).access
    address = request.client.host if request.client else "a local socket"
    await anyio.sleep(access.wrong_tokens.delay(address))
    if not access.accepts(token):
        access.wrong_tokens.add(address)
        fault = "This is not the token."
        return page(request, "login.html", HTTPStatus.FORBIDDEN, fault=fault)
    base = request.scope.get("root_path", "")
    answer = RedirectResponse(f"{base}/", HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        access.cookie_name,
        access.cookie(),
        max_age=LIFETIME,
        path=base or "/",
        secure=_is_encrypted(request),
        httponly=True,
        samesite="strict",
    )
    return answer


def _is_encrypted(request: Request) -> bool:
    """Whether the browser speaks HTTPS, to us or to the first of the proxies in front of us.

    Each proxy may add what its own client spoke, so the first one is the browser's.
    """
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0]
    return "https" in {request.url.scheme, forwarded.strip().lower()}


async def _token(request: Request) -> str:
    """The token of the form; empty if the form is malformed or longer than 4 KiB."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM_BYTES:
            return ""
    return parse_qs(body.decode("ascii", "replace")).get("token", [""])[0]
