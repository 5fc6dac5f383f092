"""The gate before every page: host, client, token, and the headers of each answer."""

from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

_OPEN: Final = ("/login", "/static/")
"""Paths that need no token."""

_FORWARDED: Final = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""Headers of a request that came through a proxy."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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
        await answer(scope, receive, _hardened(send))

    def _refusal(self, request: HTTPConnection) -> Response | None:
        host = _without_port(request.headers.get("host", ""))
        if host not in self._hosts:
            return _refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this host name is unknown: allow it with --allow-host, or hosts=.. of console_app",
            )
        if not self._access.needs_token:
            return None if _is_local(request) else _refused(HTTPStatus.FORBIDDEN, _FROM_ELSEWHERE)
        base = request.scope.get("root_path", "")
        path = request.scope["path"].removeprefix(base)
        if path.startswith(_OPEN) or self._access.lets_in(request.cookies):
            return None
        if path == "/live":
            return _refused(HTTPStatus.UNAUTHORIZED, "log in again")
        return RedirectResponse(f"{base}/login", HTTPStatus.SEE_OTHER)


_FROM_ELSEWHERE: Final = (
    "only this machine may look: set a token in DSQL_OUTBOX_CONSOLE_TOKEN, "
    "or token=.. of console_app"
)


def _refused(status: HTTPStatus, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _is_local(request: HTTPConnection) -> bool:
    """Whether the client is on this machine. A Unix socket has no client address.

    A proxy on this machine speaks for clients that may be elsewhere.
    """
    if not _FORWARDED.isdisjoint(request.headers):
        return False
    if request.client is None:
        return True
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _hardened(send: Send) -> Send:
    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return hardened
