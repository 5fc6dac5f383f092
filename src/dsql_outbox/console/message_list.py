"""The list of messages that were not delivered, with its filter."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from dsql_outbox.publisher import STATES, Selection

from .console_state import console_of
from .layout import page

_FIELDS: Final = ("subject", "topic", "type", "error", "since", "until")


async def messages(request: Request) -> Response:
    """Answer a page of messages."""
    console = console_of(request)
    which = _selection(request)
    found = await console.messages.page(which, after := request.query_params.get("after") or None)
    query = {name: tuple(texts) for name, texts in which.texts().items()}
    return page(
        request,
        "messages.html",
        found=found,
        which=which,
        states=STATES,
        given={name: "".join(query.get(name, ())) for name in _FIELDS},
        query=query,
        is_first=after is None,
    )


def _selection(request: Request) -> Selection:
    """The selection of the query; a field that a form left empty is not set."""
    query = request.query_params
    given = {name: [text.strip() for text in query.getlist(name)] for name in query}
    return Selection.parse({name: texts for name, texts in given.items() if any(texts)})
