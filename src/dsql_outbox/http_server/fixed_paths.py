"""An application of a few fixed paths, whose answers are made at once."""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from .server import Application, Message, Receive, Send, plain_answer


class Answer(NamedTuple):
    """An HTTP response."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Route = Callable[[], Answer]
Routes = Mapping[str, Route]

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


def fixed_paths(routes: Routes) -> Application:
    """The ASGI application that answers GET and HEAD on the paths of `routes`."""

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        del receive
        route = routes.get(scope["path"])
        if scope["method"] not in _METHODS:
            return await plain_answer(send, HTTPStatus.METHOD_NOT_ALLOWED)
        if route is None:
            return await plain_answer(send, HTTPStatus.NOT_FOUND)
        status, body, content_type = route()
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return None

    return application
