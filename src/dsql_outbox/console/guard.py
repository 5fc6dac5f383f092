"""The gate before every page: host, client, token, and the headers of each answer."""

import logging
from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsql_outbox.http_server.hosts import is_loopback, without_port
from dsql_outbox.http_server.server import SECURITY_HEADERS

from .access import Access

logger = logging.getLogger("dsql_outbox")

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

_OPEN: Final = ("/login", "/static/")
"""Paths that need no token."""

_FORWARDED: Final = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""Headers of a request that came through a proxy."""


class Guard:
    """Middleware. A request whose Host header names an unknown host is refused.

    A page of another site could otherwise reach the console under its own name (DNS
    rebinding). Without a token, only clients of this machine are answered.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], access: Access) -> None:
        self._app = app
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._refusal(HTTPConnection(scope)) or self._app
        hardened = _Hardened(send)
        try:
            await answer(scope, receive, hardened)
        except Exception:
            # Starlette's own answer to a bug would go out beside this middleware.
            logger.exception("console: %s could not be answered", scope["path"])
            if not hardened.started:
                answer = _refusal_answer(
                    HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault: see the log"
                )
                await answer(scope, receive, hardened)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        host = without_port(request.headers.get("host", ""))
        if host not in self._hosts:
            return _refusal_answer(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this host name is unknown: allow it with --allow-host, or hosts=.. of console_app",
            )
        if not self._access.needs_token:
            return (
                None
                if _is_local(request)
                else _refusal_answer(HTTPStatus.FORBIDDEN, _FROM_ELSEWHERE)
            )
        base = request.scope.get("root_path", "")
        path = request.scope["path"].removeprefix(base)
        if path.startswith(_OPEN) or self._access.lets_in(request.cookies):
            return None
        if path == "/live":
            return _refusal_answer(HTTPStatus.UNAUTHORIZED, "log in again")
        return RedirectResponse(f"{base}/login", HTTPStatus.SEE_OTHER)


_FROM_ELSEWHERE: Final = (
    "this console is open to its machine only, and you come from elsewhere or through a proxy: "
    "start it with a token"
)


def _refusal_answer(status: HTTPStatus, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)


def _is_local(request: HTTPConnection) -> bool:
    """Whether the client is on this machine. A Unix socket has no client address.

    A proxy on this machine speaks for clients that may be elsewhere.
    """
    if not _FORWARDED.isdisjoint(request.headers):
        return False
    if request.client is None:
        return True
    return is_loopback(request.client.host)


class _Hardened:
    """Sends an answer with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)
