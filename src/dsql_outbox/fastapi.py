"""The outbox in a FastAPI application.

app = FastAPI(lifespan=Outbox(Database(url), sink="nats://..").lifespan, responses=PROBLEMS)
install_error_handlers(app)

@app.post("/orders", status_code=201)
async def create(order: Order, writer: OutboxWriter) -> Receipt:
    return await writer.write(Event.new("OrderCreated", [..]))
"""

from typing import Annotated, Any, Final

from dsql_outbox.outbox.errors import MissingExtra, OutboxError
from dsql_outbox.writer.async_writer import AsyncWriter

try:
    from fastapi import Depends
    from pydantic import TypeAdapter
except ModuleNotFoundError as error:
    raise MissingExtra("fastapi", "dsql_outbox.fastapi") from error

from .starlette import (
    PROBLEM_JSON,
    Outbox,
    install_error_handlers,
    outbox_ready,
    outbox_writer,
    readyz,
)

__all__ = [
    "PROBLEMS",
    "Outbox",
    "OutboxWriter",
    "install_error_handlers",
    "outbox_ready",
    "outbox_writer",
    "readyz",
]

OutboxWriter = Annotated[AsyncWriter, Depends(outbox_writer)]
"""The type of an endpoint's parameter that gets the writer of the application."""

_PROBLEM: Final = TypeAdapter(OutboxError).json_schema(mode="serialization") | {
    "title": "Problem",
    "description": "Problem details (RFC 9457)",
}


def _problem_response(description: str) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM_JSON: {"schema": _PROBLEM}}}


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    409: _problem_response(
        "An event with this id was stored before, or its subject has another version"
    ),
    413: _problem_response("The event is too large"),
    503: _problem_response(
        "The outcome is unknown, the database cannot be reached, or conflicts outlasted the retries"
    ),
}
"""The answers of `install_error_handlers` for OpenAPI: ``FastAPI(responses=PROBLEMS)``.

The 422 of an invalid event is not among them, since it would hide FastAPI's own.
"""
