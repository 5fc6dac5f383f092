"""The pages of an event and of an entity, and the search that finds them."""

from http import HTTPStatus
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dsql_outbox.operations.jaeger_page import traces_page
from dsql_outbox.operations.messages import messages_of
from dsql_outbox.operations.selection import Selection
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.message import parse_subject_key

from .console_state import console_of
from .layout import link, page
from .problems import problem

_ROWS: Final = 50
_KEPT: Final = 10


async def search(request: Request) -> Response:
    """Send the reader to the event or the entity of the query, or show the newest events."""
    wanted = request.query_params.get("q", "").strip()
    base = request.scope.get("root_path", "")
    if not wanted:
        return await _events(request)
    if (event_id := _uuid(wanted)) is not None:
        return RedirectResponse(link(base, f"/events/{event_id}"), HTTPStatus.SEE_OTHER)
    try:
        parse_subject_key(wanted)
    except SettingsError:
        fault = "This is neither the id of an event nor TYPE/ID, as in Loan/LOAN-7."
        return await _events(request, wanted, fault)
    return RedirectResponse(link(base, "/entities", key=wanted), HTTPStatus.SEE_OTHER)


async def _events(request: Request, wanted: str = "", fault: str | None = None) -> Response:
    """The newest events; with `fault`, what is wrong with the search for `wanted`."""
    console = console_of(request)
    newest = await console.records.newest(rows=_ROWS)
    found = await console.records.newest_waiting(rows=_ROWS) if newest is None else newest
    return page(
        request,
        "events.html",
        HTTPStatus.OK if fault is None else HTTPStatus.BAD_REQUEST,
        wanted=wanted,
        fault=fault,
        found=found,
        are_all=newest is not None,
        where=await messages_of(console.messages, [each.id for each in found]),
    )


async def event(request: Request) -> Response:
    """Answer the page of one event."""
    console = console_of(request)
    event_id: UUID = request.path_params["event_id"]
    found = await console.records.event(event_id)
    where = await messages_of(console.messages, [event_id])
    if found is None and not where[event_id]:
        title = "No such event"
        return problem(request, HTTPStatus.NOT_FOUND, title, f"No event {event_id} is stored here.")
    wants_payload = "payload" in request.query_params
    return page(
        request,
        "event.html",
        event_id=event_id,
        event=found,
        where=where[event_id],
        findings=await console.records.findings(event_id, links_trace=bool(console.jaeger)),
        replays=await console.records.replays(event_id),
        payload=await console.records.payload(event_id) if wants_payload else None,
        traces_page=traces_page(console.jaeger, event_id) if console.jaeger else None,
    )


async def entity(request: Request) -> Response:
    """Answer the page of one entity: its state, and its versions from `before` back."""
    console = console_of(request)
    key = request.query_params.get("key", "")
    names = parse_subject_key(key)
    found = await console.records.entity(*names)
    if found is None:
        return problem(
            request, HTTPStatus.NOT_FOUND, "No such entity", f"No event has touched {key}."
        )
    last = min(_whole(request, "before", found.version + 1) - 1, found.version)
    versions = await console.records.history(*names, last, rows=_ROWS)
    where = await messages_of(console.messages, [each.event_id for each in versions])
    of_subject = Selection(subject=key)
    kept = await console.messages.page(of_subject)
    return page(
        request,
        "entity.html",
        kept=kept,
        shown=kept.found[:_KEPT],
        names=names,
        entity=found,
        versions=versions,
        where=where,
        of_subject=of_subject,
        older=last - _ROWS + 1 if last > _ROWS else None,
        newest=last == found.version,
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _whole(request: Request, name: str, default: int) -> int:
    """A whole number of the query that fits a column; `default` for anything else."""
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else default  # noqa: PLR2004 - digits of a bigint
