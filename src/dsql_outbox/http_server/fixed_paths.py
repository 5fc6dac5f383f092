"""An application of a few fixed paths, whose answers are made at once."""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from .hosts import is_foreign
from .server import Application, Message, Receive, Send, plain_answer


class Answer(NamedTuple):
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Route = Callable[[], Answer]
Routes = Mapping[str, Route]

_FOREIGN: Final = Answer(
    HTTPStatus.MISDIRECTED_REQUEST,
    b"this server is for its own machine: let the Host header say localhost, or listen on "
    b"another address\n",
    "text/plain; charset=utf-8",
)

_METHODS: Final = {"GET", "HEAD"}

_INDEX: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<h1>{title}</h1>
<ul>
{links}
</ul>
"""


def index(title: str, paths: Iterable[str]) -> Answer:
    """A page with a link to each of the paths."""
    links = "\n".join(f'<li><a href="{path}">{path}</a>' for path in paths)
    body = _INDEX.format(title=title, links=links).encode()
    return Answer(HTTPStatus.OK, body, "text/html; charset=utf-8")


def fixed_paths(routes: Routes, *, is_local: bool = False) -> Application:
    """The ASGI application that answers GET and HEAD on the paths of `routes`.

    If the server `is_local`, which listens on a loopback address, a request that names another
    host gets 421.
    """

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        del receive
        route = routes.get(scope["path"])
        if is_local and is_foreign(scope["headers"]):
            return await _send(send, _FOREIGN)
        if scope["method"] not in _METHODS:
            return await plain_answer(send, HTTPStatus.METHOD_NOT_ALLOWED)
        if route is None:
            return await plain_answer(send, HTTPStatus.NOT_FOUND)
        return await _send(send, route())

    return application


async def _send(send: Send, answer: Answer) -> None:
    status, body, content_type = answer
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
