"""The checks: each reads one property of the database and judges it. None of them writes."""

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from time import monotonic, time
from typing import Final

from dsql_outbox.operations.attention import Attention, attention
from dsql_outbox.operations.operator_commands import Commands
from dsql_outbox.schema.drift import Drift
from dsql_outbox.schema.roles import lacking_rights

from .examined_database import ExaminedDatabase
from .finding import Finding, Verdict
from .verdicts import (
    ClockReading,
    DeadRows,
    judge_clock,
    judge_path,
    judge_relay,
    judge_role,
    judge_tls,
    judge_vacuum,
    offset_of,
)

Check = Callable[[ExaminedDatabase], Iterator[Finding]]

_OLDEST_POSTGRES: Final = 150_000
_ROUND_TRIPS: Final = 20
_OPENINGS: Final = 3

_NOTHING_SENT: Final = "not asked: no message is sent from the tables of the inbox"

_LEVELS: Final = {"read committed", "read uncommitted", "repeatable read"}


def server(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The product and the version of the server, and whether it accepts writes."""
    found = visit.server
    kind = "Aurora DSQL" if visit.is_dsql else "PostgreSQL"
    text, values = f"{kind} {found.version}", {"kind": kind, "version": found.version}
    if found.number < _OLDEST_POSTGRES:
        yield Finding("server", "fail", text, "use PostgreSQL 15 or newer", values=values)
    elif not visit.connection.accepts_writes:
        remedy = "name the primary, and look at default_transaction_read_only"
        text = f"{text}; it accepts no writes"
        yield Finding("server", "fail", text, remedy, values=values)
    else:
        yield Finding("server", "ok", text, values=values)


def isolation(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The isolation level of a writer's statements."""
    level = visit.server.isolation
    text, values = f"{level}, and so are the writer's transactions", {"level": level}
    if level in _LEVELS:
        yield Finding("isolation", "ok", text, values=values)
        return
    remedy = f"set default_transaction_isolation to 'repeatable read': {level} only adds conflicts"
    yield Finding("isolation", "warn", text, remedy, values=values)


def clock(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The difference between this machine's clock and the database's clock."""
    samples: list[ClockReading] = []
    for _ in range(_ROUND_TRIPS):
        before, start = time(), monotonic()
        ((there,),) = visit.rows("doctor_clock")
        samples.append(ClockReading(monotonic() - start, before, there))
    yield judge_clock(*offset_of(samples))


def tls(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether TLS protects the connection and the server's identity is verified."""
    found = visit.connection.info
    if not visit.connection.pgconn.ssl_in_use:
        yield judge_tls(found.host, None, "disable")
        return
    rows = visit.rows("doctor_tls")
    version = str(rows[0][0]) if rows else "TLS of unknown version"
    yield judge_tls(found.host, version, found.get_parameters().get("sslmode", "prefer"))


def role(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The duties that this role has all rights for."""
    user = visit.server.user
    lacks = lacking_rights(visit.connection, visit.schema, user)
    if not lacks:
        yield Finding("role", "unknown", f"{user}; its rights need the tables to be checked")
        return
    yield judge_role(user, visit.schema, lacks)


def search_path(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether other roles can create functions that sessions of the library would find by name.

    PostgreSQL's manual recommends a search path without writable schemas:
    https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATTERNS
    """
    if visit.is_dsql:
        yield Finding("search path", "ok", "only admin can create in public")
        return
    ((path, user, creators),) = visit.rows("doctor_path")
    yield judge_path(path, user, creators)


def schema(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether the tables are as this version needs them."""
    found = [drift for drift in visit.drifts if drift.part != "shard"]
    if missing := visit.missing:
        verdict: Verdict = "warn" if missing.inbox_alone else "fail"
        yield Finding("schema", verdict, missing.text, missing.remedy)
        found = [drift for drift in found if not _is_missing(drift)]
    for note in (drift for drift in found if drift.is_note):
        yield Finding("schema", "ok", note.text)
    drifts = [drift for drift in found if not drift.is_note]
    for drift in drifts:
        yield _drifted("schema", drift.text)
    if not drifts and not missing:
        yield Finding("schema", "ok", f"{visit.schema}: as this version needs it")


def _is_missing(drift: Drift) -> bool:
    return drift.difference == "missing" and drift.part in {"schema", "table", "view"}


_FORGED: Final = "the library never writes such a row: check which roles have a writer's rights"


def shards(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether every shard can be relayed."""
    if visit.only_consumes:
        yield Finding("shards", "ok", _NOTHING_SENT)
        return
    drifts = [drift for drift in visit.drifts if drift.part == "shard"]
    for drift in drifts:
        yield _drifted("shards", drift.text)
    for stranded in visit.status.stranded:
        if stranded.position is not None:
            text = f"a message waits in shard {stranded.shard} at position {stranded.position}"
            yield Finding("shards", "warn", f"{text}: {stranded.reason}", _FORGED)
    if not drifts:
        found = visit.status.shards
        leased = sum((shard.lease_seconds or 0) > 0 for shard in found)
        text = f"{len(found)}, {leased} of them leased; no message is in another shard"
        yield Finding("shards", "ok", text, values={"shards": len(found), "leased": leased})


def _drifted(name: str, told: str) -> Finding:
    text, found, remedy = told.rpartition(": ")
    return Finding(name, "fail", text, remedy) if found else Finding(name, "fail", told)


def round_trip(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The time of the smallest query, in seconds."""
    taken = median(_timed(lambda: visit.rows("doctor_clock")) for _ in range(_ROUND_TRIPS))
    text = f"{taken * 1000:.2f} ms, median of {_ROUND_TRIPS}"
    yield Finding("round trip", "ok", text, values={"seconds": taken})


def opening(visit: ExaminedDatabase) -> Iterator[Finding]:
    """The time to connect, in seconds: every retry of a write opens a connection."""

    def once() -> None:
        visit.connect().close()

    taken = median(_timed(once) for _ in range(_OPENINGS))
    text = f"{taken * 1000:.2f} ms to connect, median of {_OPENINGS}"
    yield Finding("opening", "ok", text, values={"seconds": taken})


def relay(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a publisher is alive, and how long messages wait."""
    if visit.only_consumes:
        yield Finding("relay", "ok", _NOTHING_SENT)
        return
    alive = sum(seen.relays for seen in visit.status.publishers)
    first = next(iter(attention(visit.status)), None)
    if first is not None and first.command == Commands(visit.schema).doctor():
        first = Attention(first.text)  # it runs already, and another line says more
    yield judge_relay(alive, visit.status.oldest_seconds, first)


def vacuum(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether the database removes the rows that publishers delete."""
    if visit.is_dsql:
        yield Finding("vacuum", "ok", "not asked: Aurora DSQL has no VACUUM")
        return
    for row in visit.rows("doctor_vacuum", {"schema": visit.schema}):
        yield judge_vacuum(DeadRows(*row))


def _timed(work: Callable[[], object]) -> float:
    start = monotonic()
    work()
    return monotonic() - start


CHECKS: Final[Mapping[str, Check]] = {
    "server": server,
    "isolation": isolation,
    "clock": clock,
    "tls": tls,
    "role": role,
    "search path": search_path,
    "schema": schema,
    "shards": shards,
    "round trip": round_trip,
    "opening": opening,
    "relay": relay,
    "vacuum": vacuum,
}
"""All checks by name, in the order in which they run and are shown."""
