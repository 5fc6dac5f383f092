"""An hour with one connection and one writer: what ends a connection, and what a writer notices."""

from time import monotonic, sleep
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.examined_database import run
from dsql_outbox.cli.doctor.finding import Finding, Value
from dsql_outbox.outbox import Connection, Database, Entity, Event, OutboxError, told
from dsql_outbox.writer import Writer

NAME: Final = "hour"

_LENGTH: Final = 65 * 60.0
_EVERY: Final = 10.0
"""Seconds. Aurora DSQL ends a connection after 60 minutes; a token signed here ends after 5."""

_PATIENCE: Final = 15.0


def hour(database: Database) -> Finding:
    """How long a connection lasts beyond its token, and whether a writer stores all meanwhile."""
    start, longest, stored, written = monotonic(), 0.0, 0, 0
    ended: tuple[float, psycopg.Error] | None = None
    with database.connect() as held, Writer(database) as writer:
        while monotonic() < start + _LENGTH:
            if ended is None and (error := _ended(held, database.schema)):
                ended = monotonic() - start, error
            began, written = monotonic(), written + 1
            stored += _is_stored(writer)
            longest = max(longest, monotonic() - began)
            sleep(_EVERY)
    return judge_hour(ended, stored, written, longest)


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
        writer.write(Event.new("Car Driven", "CarDriven", [Entity("Car", "CAR-1", {})]))
    except (psycopg.Error, OutboxError):
        return False
    return True


def judge_hour(
    ended: tuple[float, psycopg.Error] | None, stored: int, written: int, longest: float
) -> Finding:
    """Judge by the end of the connection, if it came, and by the events."""
    values: dict[str, Value] = {"stored": stored, "written": written, "longest_seconds": longest}
    if ended is None:
        text = f"a connection outlived {_LENGTH / 60:.0f} minutes"
        sqlstate = None
    else:
        seconds, error = ended
        sqlstate = error.sqlstate
        values |= {"ended_seconds": seconds, "message": told(error)}
        text = f"a connection ended after {seconds:.0f} s with {sqlstate or 'no SQLSTATE'}"
    text += f"; {stored} of {written} writes stored, longest {longest:.1f} s"
    if stored < written:
        return Finding(NAME, "fail", text, "do not write here: events are lost", sqlstate, values)
    return Finding(NAME, "ok", text, sqlstate=sqlstate, values=values)
