"""An AWS Lambda function that stores events: API Gateway HTTP API, payload format 2.0.

    POST /api/v1/events         one event
    POST /api/v1/events/bulk    an array of at most 100, with an outcome for each
    GET  /api/v1/events/health

Everything happens in the thread of the invocation: one connection, kept for the
next one, and nothing that runs between them. Settings and deployment are in
docs/lambda.md.
"""

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from time import monotonic
from typing import Any, Protocol

import environment
import msgspec
import spans
from answers import Answer, Refused, of_bulk, of_error, of_receipt

from dsql_outbox import Writer, WriterSettings
from dsql_outbox.aws_lambda import Doorbell

MAX_BULK = 100
"""Events in one request."""

MARGIN = 1.0
"""Seconds of an invocation that no write may use: the bell, the spans and the answer need them."""

LONGEST_RING = 0.5
"""Seconds that the answer waits for the doorbell."""

Request = dict[str, Any]

spans.set_up()
environment.set_up_logs()
rung = os.environ.get("DSQL_OUTBOX_RELAY_FUNCTION")
bells = [Doorbell(rung, timeout=LONGEST_RING)] if rung else []


class Context(Protocol):
    """The part of Lambda's context that is used here."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends this invocation."""
        ...


def handler(request: Request, context: Context) -> dict[str, Any]:
    """Answer one request; the function's entry point."""
    ends = monotonic() + context.get_remaining_time_in_millis() / 1000
    method, path = _target(request)
    with spans.request(method, path if path in ROUTES else None, request.get("headers")) as span:
        answer = _answer(request, method, path, ends - MARGIN)
        span.ended(answer.status)
    for bell in bells:
        bell.ring()
    spans.flush(ends - monotonic() - MARGIN / 2)
    return answer.response()


@cache
def writer() -> Writer:
    """The only writer, made when the first event comes; its connection outlives the invocation."""
    settings = replace(WriterSettings.origin(), max_connections=1)
    return Writer(environment.database(), settings, hooks=bells)


def _answer(request: Request, method: str, path: str, deadline: float) -> Answer:
    try:
        if path not in ROUTES:
            raise Refused(404, "Not Found")
        allowed, route = ROUTES[path]
        if method != allowed:
            raise Refused(405, "Method Not Allowed", {"Allow": allowed})
        return route(request, deadline)
    except Refused as refused:
        return refused.answer
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
        return of_error(error)


def _one(request: Request, deadline: float) -> Answer:
    event = _body(request)
    return of_receipt(writer().write(event, timeout=_left(deadline)))


def _bulk(request: Request, deadline: float) -> Answer:
    try:
        events = msgspec.json.decode(_body(request), type=list[msgspec.Raw])
    except msgspec.ValidationError:
        raise Refused(422, "Invalid request: the body must be an array of events") from None
    if not events:
        raise Refused(422, "Invalid request: events list is null or empty")
    if len(events) > MAX_BULK:
        raise Refused(413, f"{len(events)} events are over the limit of {MAX_BULK} in one request")
    outcomes = writer().write_many([bytes(event) for event in events], timeout=_left(deadline))
    return of_bulk(outcomes)


def _health(_request: Request, _deadline: float) -> Answer:
    """That the function runs; the database is not asked."""
    return Answer(200, {"status": "healthy", "message": "Producer API is healthy"})


ROUTES: dict[str, tuple[str, Callable[[Request, float], Answer]]] = {
    "/api/v1/events": ("POST", _one),
    "/api/v1/events/bulk": ("POST", _bulk),
    "/api/v1/events/health": ("GET", _health),
}


def _target(request: Request) -> tuple[str, str]:
    """Method and path; API Gateway leaves a named stage in front of the path."""
    context, path = request["requestContext"], request["rawPath"]
    if path not in ROUTES:
        path = path.removeprefix(f"/{context['stage']}")
    return context["http"]["method"], path


def _body(request: Request) -> bytes:
    """The body, byte for byte, if it is JSON."""
    body = (request.get("body") or "").encode()
    try:
        if request.get("isBase64Encoded"):
            body = base64.b64decode(body, validate=True)
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (binascii.Error, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        raise Refused(400, "Invalid JSON") from None
    return body


def _left(deadline: float) -> float:
    """Seconds for a write; without any, nothing is started."""
    left = deadline - monotonic()
    if left <= 0:
        raise Refused(503, "Service Temporarily Unavailable: no time is left", retry_after=1)
    return left
