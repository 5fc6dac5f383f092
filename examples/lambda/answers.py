"""The answers of the function: a status, and the bodies that its clients know."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple

import psycopg

from dsql_outbox import (
    DuplicateEvent,
    InvalidEvent,
    OutboxError,
    OutcomeUnknown,
    Receipt,
    http_status,
)

UNAVAILABLE = "Service Temporarily Unavailable"
NOT_STORED = "The event is not stored; the database cannot be reached. Please try again."

logger = logging.getLogger("dsql_outbox.lambda")


class Answer(NamedTuple):
    """A status, a JSON body and headers."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = MappingProxyType({})

    def response(self) -> dict[str, Any]:
        """As API Gateway takes it."""
        return {
            "statusCode": self.status,
            "headers": {"Content-Type": "application/json", **self.headers},
            "body": json.dumps(self.body),
            "isBase64Encoded": False,
        }


class Refused(Exception):
    """A request that is answered without the writer."""

    def __init__(
        self,
        status: int,
        error: str,
        headers: dict[str, str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(error)
        self.answer = _with_retry(status, {"error": error}, retry_after, headers or {})


def of_receipt(receipt: Receipt) -> Answer:
    """The event is stored."""
    return Answer(200, {"success": True, "message": "Event processed successfully"} | _of(receipt))


def of_error(error: Exception) -> Answer:
    """The event is not stored, or nobody knows; no text of the driver is passed on."""
    status, retry_after = http_status(error, exhausted=_exhausted())
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log(status, error)
    return _with_retry(status, _describe(status, error), retry_after)


def of_bulk(outcomes: Sequence[Receipt | Exception]) -> Answer:
    """An outcome an event, in their order; 503 if the database took none of them."""
    results = [_result(outcome) for outcome in outcomes]
    processed = sum(result["success"] for result in results)
    failed = len(results) - processed
    message = f"Processed {processed} events, {failed} failed"
    body = {
        "success": not failed,
        "message": message if failed else "All events processed successfully",
        "processedCount": processed,
        "failedCount": failed,
        "results": results,
    }
    waits = [r["retry_after"] for r in results if r["status"] == HTTPStatus.SERVICE_UNAVAILABLE]
    if processed or not waits:
        return Answer(200, body)
    return _with_retry(503, {"error": UNAVAILABLE} | body, max(waits))


def _result(outcome: Receipt | Exception) -> dict[str, Any]:
    if isinstance(outcome, Receipt):
        return {"success": True, "status": 200} | _of(outcome)
    return {"success": False} | of_error(outcome).body


def _of(receipt: Receipt) -> dict[str, Any]:
    return {
        "event_id": str(receipt.event_id),
        "attempts": receipt.attempts,
        "conflicts": receipt.conflicts,
    }


def _describe(status: int, error: Exception) -> dict[str, Any]:
    match error:
        case DuplicateEvent():
            text = {"error": "Conflict", "message": str(error), "eventId": str(error.event_id)}
            return {**text, "same_content": error.same_content}
        case InvalidEvent():
            return {"error": f"Invalid event structure: {error}"}
        case OutcomeUnknown():
            return {"error": UNAVAILABLE, "message": str(error), "eventId": str(error.event_id)}
    kind = {"error_type": type(error).__name__, "sqlstate": _sqlstate(error)}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"error": UNAVAILABLE, "message": NOT_STORED, **kind}
    return {"error": "Error processing event: it is not stored", **kind}


def _with_retry(
    status: int,
    body: dict[str, Any],
    seconds: int | None,
    headers: dict[str, str] | None = None,
) -> Answer:
    body = {**body, "status": status}
    if seconds is None:
        return Answer(status, body, headers or {})
    retry = {"Retry-After": str(seconds)}
    return Answer(status, {**body, "retry_after": seconds}, {**(headers or {}), **retry})


def _exhausted() -> int:
    """The status when conflicts outlast the retries."""
    return 503 if os.environ.get("DSQL_OUTBOX_EXHAUSTED_STATUS") == "503" else 500


def _log(status: int, error: Exception) -> None:
    """One line; the driver's texts may quote an event, ours do not."""
    text = str(error) if isinstance(error, OutboxError) else _sqlstate(error) or "no SQLSTATE"
    logger.error("answered %d: %s: %s", status, type(error).__name__, text)


def _sqlstate(error: Exception) -> str | None:
    return error.sqlstate if isinstance(error, psycopg.Error) else None
