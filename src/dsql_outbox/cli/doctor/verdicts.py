"""Verdicts on readings: pure functions from numbers and names to findings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from dsql_outbox.observability.shown_text import counted, duration
from dsql_outbox.operations.attention import Attention
from dsql_outbox.schema.commands import grant_command
from dsql_outbox.schema.roles import Duty, rights_beyond

from .finding import Finding, Verdict

_SKEW_WARN: Final = 1.0
_SKEW_FAIL: Final = 60.0
"""Seconds that the clocks may differ. AWS refuses a signature that is 5 minutes off."""

_OLD: Final = 60.0
"""Seconds that a message may wait before the relay counts as late.

A healthy publisher reads at least once per second.
"""

MOST_DEAD: Final = 100_000
"""The deleted rows in a healthy outbox. To pass over so many takes the server 0.4 s."""


class ClockReading(NamedTuple):
    """One reading of the database's clock, all in seconds.

    `before` is this machine's clock before the query, `there` is the database's answer, and
    `trip` is how long the query took.
    """

    trip: float
    before: float
    there: float


def offset_of(samples: Iterable[ClockReading]) -> tuple[float, float]:
    """The database's clock minus this machine's, and the error bound; both in seconds.

    This is Cristian's algorithm: the answer is taken to be half a trip old, and
    the quickest trip gives the smallest bound.
    """
    trip, before, there = min(samples)
    return there - (before + trip / 2), trip / 2


def judge_clock(offset: float, bound: float) -> Finding:
    """Judge the clocks: `offset` seconds is the database's minus this machine's, +/- `bound`."""
    way = "ahead of" if offset >= 0 else "behind"
    text = f"the database is {abs(offset):.3f} s {way} this machine, +/- {bound:.4f} s"
    values = {"offset": offset, "bound": bound}
    sure = abs(offset) - bound
    if sure <= _SKEW_WARN:
        return Finding("clock", "ok", text, values=values)
    remedy = "set this machine's clock by NTP: waits in traces are wrong, and AWS refuses a token"
    remedy += " that is 5 minutes off"
    return Finding("clock", "fail" if sure > _SKEW_FAIL else "warn", text, remedy, values=values)


def judge_tls(host: str, version: str | None, mode: str) -> Finding:
    """Judge the connection's TLS: `version` is None without TLS, `mode` is libpq's sslmode."""
    values = {"version": version, "mode": mode}
    local = host.startswith("/") or host in {"", "localhost", "127.0.0.1", "::1"}
    if version is None:
        if local:
            return Finding("tls", "ok", "none: this machine only", values=values)
        remedy = "add ?sslmode=verify-full to the URL"
        return Finding("tls", "fail", f"none, to {host}", remedy, values=values)
    if mode == "verify-full":
        return Finding("tls", "ok", f"{version}, certificate and host name verified", values=values)
    what = "host name not verified" if mode == "verify-ca" else "certificate not verified"
    remedy = "set sslmode=verify-full and sslrootcert: now another host could pose as the server"
    verdict: Verdict = "ok" if local else "warn"
    return Finding("tls", verdict, f"{version}, {what}", None if local else remedy, values=values)


def judge_role(
    user: str, schema: str, lacks: Mapping[Duty, Sequence[tuple[str, str | None]]]
) -> Finding:
    """Judge a role by the rights that it lacks, per duty.

    `lacks` maps a duty to pairs of a right and its table; None stands for the schema. An
    operator has all rights of a reader. So a role with any further right of an operator is
    not a reader.
    """
    own = {*rights_beyond("operator")} - {*rights_beyond("reader")}
    if not own <= {*lacks.get("operator", ())}:
        lacks = {duty: missing for duty, missing in lacks.items() if duty != "reader"}
    able = [duty for duty, missing in lacks.items() if not missing]
    values: Mapping[str, bool] = {duty: not missing for duty, missing in lacks.items()}
    if able:
        text = f"{user} has the rights of {', '.join(able)}"
        return Finding("role", "ok", text, values=values)
    nearest = min(lacks, key=lambda duty: len(lacks[duty]) / len(rights_beyond(duty)))
    rights = lacks[nearest]
    listed = ", ".join(f"{right} on {table or f'schema {schema}'}" for right, table in rights)
    remedy = grant_command(schema, {nearest: user})
    text = f"{user} has the rights of no role; as {nearest} it lacks {listed}"
    return Finding("role", "fail", text, f"run {remedy}", values=values)


def judge_path(path: str, user: str, creators: str | None) -> Finding:
    """Judge the search path: `creators` are the roles, beside its owner, that may create in public.

    `creators` is None if there are none, else their names with commas between.
    """
    values = {"path": path, "creators": creators}
    remedies: list[str] = []
    if creators:
        remedies.append(f"REVOKE CREATE ON SCHEMA public FROM {creators}")
    if path != "pg_catalog":  # our connections set it, but a pooler refuses or drops the setting
        remedies.append(f"ALTER ROLE {user} SET search_path = pg_catalog")
    if not remedies:
        text = f"{path}; only its owner may create in public"
        return Finding("search path", "ok", text, values=values)
    who = f"{creators} may" if creators else "only its owner may"
    text = f"{path}; {who} create in public"
    return Finding("search path", "warn", text, f"run {'; '.join(remedies)}", values=values)


def judge_relay(alive: int, oldest: float | None, first: Attention | None) -> Finding:
    """Judge the relay by its `alive` publishers, the `oldest` message and what status says first.

    `oldest` is how many seconds it has waited; None if no message waits.
    """
    values = {"alive": alive, "oldest": oldest}
    if first is not None:
        late = oldest is not None and oldest > _OLD
        verdict: Verdict = "warn" if alive or not late else "fail"
        remedy = None if first.command is None else f"run {first.command}"
        sentence = first.text.partition(". ")[0].removesuffix(".")
        return Finding("relay", verdict, sentence, remedy, values=values)
    waits = (
        "nothing waits" if oldest is None else f"the oldest message waits for {duration(oldest)}"
    )
    text = f"{counted(alive, 'publisher')} alive, {waits}"
    return Finding("relay", "ok", text, values=values)


class DeadRows(NamedTuple):
    """Deleted rows of the outbox that are still there, and the oldest holder of such rows.

    `kind` is None if no holder is seen. `seconds` is how long a transaction is open.
    """

    rows: int
    is_vacuumed: bool
    kind: str | None
    name: str | None
    owner: str | None
    seconds: float | None


def judge_vacuum(found: DeadRows) -> Finding:
    """Judge the deleted rows: a sweep of the relay passes over each of them."""
    text = f"{found.rows} deleted rows are still in the outbox"
    values = found._asdict()
    if found.rows <= MOST_DEAD:
        return Finding("vacuum", "ok", text, values=values)
    if not found.is_vacuumed:
        remedy = "switch autovacuum on, and run VACUUM once"
        return Finding("vacuum", "warn", f"{text}, and autovacuum is off", remedy, values=values)
    if found.kind is None:
        remedy = "ask again as a member of pg_read_all_stats, which sees what keeps them"
        return Finding("vacuum", "warn", text, remedy, values=values)
    holder = f"{found.kind} {found.name}" + (f" of {found.owner}" if found.owner else "")
    since = "" if found.seconds is None else f", open for {duration(found.seconds)}"
    remedy = f"end {holder}: nothing is removed that it may still see"
    return Finding(
        "vacuum",
        "warn",
        f"{text}; the oldest snapshot is that of {holder}{since}",
        remedy,
        values=values,
    )
