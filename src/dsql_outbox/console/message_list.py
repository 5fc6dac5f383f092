"""The list of messages that were not delivered, with its filter, and the dead ones by error."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from dsql_outbox.operations.operator_commands import of_group
from dsql_outbox.operations.selection import STATES, Selection

from .console_state import console_of
from .layout import page

_FIELDS: Final = ("target", "subject", "topic", "type", "error", "since", "until")
_ROWS: Final = 50
_GROUPS: Final = 20
_COUNTED: Final = 10_000
"""Dead letters that are read to be counted: the page is opened often, and each read row costs."""


async def messages(request: Request) -> Response:
    """Answer a page of messages."""
    console = console_of(request)
    which = _selection(request)
    after = request.query_params.get("after") or None
    found = await console.messages.page(which, after, rows=_ROWS)
    has_groups = after is None and which.state == "dead" and which.type is None and not which.ids
    groups = await console.messages.groups(which, rows=_COUNTED) if has_groups else None
    query = {name: tuple(texts) for name, texts in which.texts().items()}
    return page(
        request,
        "messages.html",
        found=found,
        shown=found.found[:_ROWS],
        groups=groups,
        shown_groups=[(each, of_group(each)) for each in groups.groups[:_GROUPS]] if groups else [],
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
