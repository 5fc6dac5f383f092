"""Pages for faults: missing rights or tables, an unreachable database, wrong input."""

import logging
from http import HTTPStatus
from typing import Final, cast

import psycopg
from anyio import to_thread
from psycopg import errors
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import OutboxError, SchemaError
from dsql_outbox.outbox.failure import is_unreachable
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.schema.commands import apply_command, grant_command
from dsql_outbox.schema.roles import lacking_rights

from .console_state import console_of
from .layout import page

logger = logging.getLogger("dsql_outbox")

_UNSEARCHABLE: Final = "This cannot be searched"


async def outbox_problem(request: Request, error: Exception) -> Response:
    """The page for an error of the library: missing tables, or input that it refuses."""
    is_setup = isinstance(error, SchemaError)
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_setup else HTTPStatus.BAD_REQUEST
    title = "The tables are missing or too old" if is_setup else _UNSEARCHABLE
    command = apply_command(console_of(request).database.schema) if is_setup else None
    return problem(request, status, title, error_line(cast("OutboxError", error)), command)


async def database_problem(request: Request, error: Exception) -> Response:
    """The page for an error of the database."""
    assert isinstance(error, psycopg.Error)  # noqa: S101 - registered for these
    if isinstance(error, errors.InsufficientPrivilege):
        return await _rights_problem(request)
    if is_unreachable(error):
        title = "The database cannot be reached"
        return problem(request, HTTPStatus.SERVICE_UNAVAILABLE, title, error_line(error))
    if isinstance(error, psycopg.DataError):  # a number or a time that no column can hold
        return problem(request, HTTPStatus.BAD_REQUEST, _UNSEARCHABLE, error_line(error))
    logger.error("console: the database refused a statement: %s", error_line(error))
    title = "The database refused a statement"
    return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, title, error_line(error))


async def http_problem(request: Request, error: Exception) -> Response:
    """The page for a path that does not exist, and the like."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these
    return problem(request, HTTPStatus(error.status_code), error.detail, None)


def problem(
    request: Request, status: HTTPStatus, title: str, text: str | None, command: str | None = None
) -> Response:
    """A page with one problem and the command that helps."""
    return page(request, "problem.html", status, title=title, text=text, remedy=command, lacking=())


async def _rights_problem(request: Request) -> Response:
    database = console_of(request).database
    user, lacking = await to_thread.run_sync(_lacking, database)
    return page(
        request,
        "problem.html",
        HTTPStatus.FORBIDDEN,
        title="Rights are missing",
        text=f"The role {user} may not read everything that the console shows. "
        "Let the owner of the tables run the command. Then load this page again.",
        remedy=grant_command(database.schema, {"reader": user}),
        lacking=[
            f"{right} on {database.schema}.{table}" if table else f"{right} on {database.schema}"
            for right, table in lacking
        ],
    )


def _lacking(database: Database) -> tuple[str, list[tuple[str, str | None]]]:
    with database.connect() as connection:
        user = connection.info.user
        found = lacking_rights(connection, database.schema, user)
    return user, found.get("reader", [])
