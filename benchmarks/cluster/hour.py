"""An hour with one connection and one writer: what ends a connection, and what a writer notices."""

from time import monotonic, sleep
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.examined_database import run
from dsql_outbox.cli.doctor.finding import Finding, Value
from dsql_outbox.outbox import Database, Entity, Event, OutboxError
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.writer import Writer

NAME: Final = "hour"

_LENGTH: Final = 65 * 60.0
_EVERY: Final = 10.0
"""Seconds. Aurora DSQL ends a connection after 60 minutes; a token signed here ends after 5."""

_PATIENCE: Final = 15.0

_REMEDY: Final = (
    "a writer tells each failed write: raise WriterSettings(timeout=..), or write again"
)


def hour(database: Database) -> Finding:
    """How long a connection lasts beyond its token, and whether a writer stores all meanwhile.

    Ctrl-C ends it before its time, and what was seen so far is told.
    """
    start, longest, stored, written = monotonic(), 0.0, 0, 0
    ended: tuple[float, psycopg.Error] | None = None
    stopped: float | None = None
    with database.connect() as held, Writer(database) as writer:
        try:
            while monotonic() < start + _LENGTH:
                if ended is None and (error := _ended(held, database.schema)):
                    ended = monotonic() - start, error
                began = monotonic()
                stored += _is_stored(writer)
                written += 1
                longest = max(longest, monotonic() - began)
                sleep(_EVERY)
        except KeyboardInterrupt:
            stopped = monotonic() - start
    return judge_hour(ended, stored, written, longest, stopped)


def _ended(connection: Connection, schema: str) -> psycopg.Error | None:
    connection.deadline = monotonic() + _PATIENCE
    try:
        run(connection, schema, "doctor_clock")
        connection.rollback()
    except psycopg.Error as error:
        return error
    return None


def _is_stored(writer: Writer) -> bool:
    try:
        writer.write(Event.new("CarDriven", [Entity("Car", "CAR-1", {})]))
    except (psycopg.Error, OutboxError):
        return False
    return True


def judge_hour(
    ended: tuple[float, psycopg.Error] | None,
    stored: int,
    written: int,
    longest: float,
    stopped: float | None = None,
) -> Finding:
    """Judge by the end of the connection, if it came, and by the events.

    `stopped` is after how many seconds the user ended it.
    """
    values: dict[str, Value] = {"stored": stored, "written": written, "longest_seconds": longest}
    if ended is None:
        lasted = f"{_LENGTH / 60:.0f} minutes" if stopped is None else f"{stopped:.0f} s"
        text = f"a connection outlived {lasted}"
        sqlstate = None
    else:
        seconds, error = ended
        sqlstate = error.sqlstate
        values |= {"ended_seconds": seconds, "message": error_line(error)}
        text = f"a connection ended after {seconds:.0f} s with {sqlstate or 'no SQLSTATE'}"
    text += f"; {stored} of {written} writes stored, longest {longest:.1f} s"
    if stored < written:
        return Finding(NAME, "fail", text, _REMEDY, sqlstate, values)
    if stopped is not None:
        values["stopped_seconds"] = stopped
        text = f"stopped after {stopped:.0f} s: {text}"
        return Finding(NAME, "unknown", text, sqlstate=sqlstate, values=values)
    return Finding(NAME, "ok", text, sqlstate=sqlstate, values=values)
