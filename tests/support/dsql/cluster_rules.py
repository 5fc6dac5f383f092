"""What Aurora DSQL makes of a transaction, as recorded from a cluster or documented; without I/O.

Sources: tests/data/dsql (recorded answers) and the quotas of the service (AWS, "Cluster quotas
and database limits in Amazon Aurora DSQL"). The texts are the service's own.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NamedTuple

MAX_ROWS: Final = 3_000
MAX_BYTES: Final = 10 << 20  # written by a transaction, and as long as a message may be
MAX_VALUE: Final = 1 << 20  # bytes of a column in a row
MAX_ROW: Final = 2 << 20  # bytes
MAX_KEY: Final = 1_981  # bytes, as observed; documented are 1,024
MAX_AGE: Final = 300.0  # seconds
MAX_LIFE: Final = 3600.0  # seconds of a connection
MAX_OPEN: Final = 10_000  # connections
OPENINGS: Final = 100.0  # a second
BURST: Final = 1_000  # of openings at once


class Violation(NamedTuple):
    """The error that a client gets."""

    sqlstate: str
    message: str


TWO_DDL: Final = Violation("0A000", "multiple ddl statements not supported in a transaction")
MIXED: Final = Violation("0A000", "ddl and dml are not supported in the same transaction")
ROWS: Final = Violation("54000", "transaction row limit exceeded")
SIZE: Final = Violation("54000", "transaction size limit 10mb exceeded")
LARGE_VALUE: Final = Violation("54000", "column size limit 1mb exceeded")  # not recorded
LARGE_ROW: Final = Violation("54000", "row size limit 2mb exceeded")  # not recorded
LARGE_KEY: Final = Violation("54000", "key size too large")
MEMORY: Final = Violation(
    "54000", "query requires more than allowed temp space of 131072 KB to execute"
)
AGE: Final = Violation("54000", "transaction age limit of 300s exceeded")
RATE: Final = Violation("53400", "Unable to accept connection, rate exceeded.")
CROWD: Final = Violation("53300", "Unable to accept connection, too many open connections.")
# Its SQLSTATE is not recorded. PostgreSQL's for a server that starts up is this one.
WAKING: Final = Violation(
    "57P03", "unable to accept connection, waking up cluster, please retry later"
)
CONFLICT: Final = Violation("40001", "change conflicts with another transaction (OC000)")
SCHEMA: Final = Violation("40001", "schema has been updated by another transaction (OC001)")

_COMMENT: Final = re.compile(r"\s*(--[^\n]*(\n|$)|/\*.*?\*/)", re.DOTALL)
_KIND: Final = re.compile(
    r"""\s*(?:(?P<begin>BEGIN|START\s+TRANSACTION)|(?P<commit>COMMIT|END)|(?P<rollback>ROLLBACK|ABORT)
    |(?P<ddl>CREATE|ALTER|DROP|GRANT|REVOKE)|(?P<write>INSERT|UPDATE|DELETE)|(?P<with>WITH))\b""",
    re.IGNORECASE | re.VERBOSE,
)
_WRITES: Final = re.compile(r"\b(INSERT\s+INTO|UPDATE\s|DELETE\s+FROM)", re.IGNORECASE)


@cache
def kind_of(sql: str) -> str:
    """One of begin, commit, rollback, ddl, write, read."""
    bare = sql
    while found := _COMMENT.match(bare):
        bare = bare[found.end() :]
    kind = _KIND.match(bare)
    if kind is None:
        return "read"
    if kind.lastgroup == "with":
        return "write" if _WRITES.search(bare) else "read"
    return kind.lastgroup or "read"


_READ: Final = re.compile(r"\s*(SELECT|VALUES|TABLE|SHOW|EXPLAIN|WITH)\b", re.IGNORECASE)
_LOCKS: Final = re.compile(r"\bFOR\s+(UPDATE|KEY\s+SHARE)\b", re.IGNORECASE)


def is_read(sql: str) -> bool:
    """Whether a statement leaves nothing behind in its transaction, not even a lock."""
    if kind_of(sql) != "read":
        return False
    bare = sql
    while found := _COMMENT.match(bare):
        bare = bare[found.end() :]
    return not bare.strip() or (bool(_READ.match(bare)) and not _LOCKS.search(bare))


def too_large(row: int, value: int) -> Violation | None:
    """The error of a statement that writes a row, or a value, of so many bytes."""
    if value > MAX_VALUE:
        return LARGE_VALUE
    return LARGE_ROW if row > MAX_ROW else None


@dataclass(slots=True)
class Openings:
    """How many connections may be opened now: `BURST`, refilled by `OPENINGS` a second."""

    clock: Callable[[], float]
    _left: float = BURST
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._at = self.clock()

    def open(self, others: int) -> Violation | None:
        """Whether one more is refused beside `others` that are open."""
        if others >= MAX_OPEN:
            return CROWD
        now = self.clock()
        self._left = min(BURST, self._left + (now - self._at) * OPENINGS)
        self._at = now
        if self._left < 1:
            return RATE
        self._left -= 1
        return None


@dataclass(slots=True)
class Sleeps:
    """Whether the cluster sleeps. The first connection wakes it up, which takes a while."""

    clock: Callable[[], float]
    _wakes_up: float | None = None
    _awake_at: float | None = None

    def fall_asleep(self, *, wakes_up: float) -> None:
        """Refuse connections until `wakes_up` seconds after the first one."""
        self._wakes_up, self._awake_at = wakes_up, None

    @property
    def is_asleep(self) -> bool:
        """Whether its sessions have ended."""
        return self._wakes_up is not None

    @property
    def is_waking_up(self) -> bool:
        """Whether a connection was refused since it sleeps."""
        return self._awake_at is not None and self.is_asleep

    def connect(self) -> Violation | None:
        """Whether a connection is refused."""
        if self._wakes_up is None:
            return None
        if self._awake_at is None:
            self._awake_at = self.clock() + self._wakes_up
        if self.clock() < self._awake_at:
            return WAKING
        self._wakes_up = None
        return None


@dataclass(slots=True)
class Catalog:
    """The schema of all sessions; its version grows with each change."""

    version: int = 0


@dataclass(slots=True)
class Transactions:
    """The transactions of one session, one after the other; `clock` tells seconds."""

    catalog: Catalog
    clock: Callable[[], float]
    _seen: int = field(init=False)
    _since: float = 0.0
    _ran: set[str] = field(default_factory=set)
    _changes_schema: bool = False
    doomed: bool = False
    """Whether it has lost a conflict, of which it learns at its COMMIT."""

    def __post_init__(self) -> None:
        self._seen = self.catalog.version

    def begin(self) -> None:
        """A transaction begins."""
        self._since = self.clock()
        self._ran = set()
        self._changes_schema = self.doomed = False

    def before(self, kind: str) -> Violation | None:
        """Whether a statement fails before it runs, or a COMMIT.

        The first one after another session's change of the schema does, once; and what would
        be a second change of the schema in a transaction, or one beside a write.
        """
        if self._seen < self.catalog.version:
            self._seen = self.catalog.version
            return SCHEMA
        if kind == "ddl" and "ddl" in self._ran:
            return TWO_DDL
        if {"ddl", "write"} <= self._ran | {kind}:
            return MIXED
        self._ran.add(kind)
        return None

    def wrote(self, rows: int) -> Violation | None:
        """Whether the statement fails after which the counter of changed rows stands at `rows`."""
        return ROWS if rows > MAX_ROWS else None

    def at_commit(self, size: int) -> Violation | None:
        """Whether the COMMIT of so many bytes fails."""
        if self.clock() - self._since > MAX_AGE:
            return AGE
        if size > MAX_BYTES:
            return SIZE
        return CONFLICT if self.doomed else None

    def changes_schema(self) -> None:
        """The transaction ran DDL."""
        self._changes_schema = True

    def committed(self) -> None:
        """It ended well: what it changed of the schema, all others meet."""
        if self._changes_schema:
            self.catalog.version += 1
            self._seen = self.catalog.version
            self._changes_schema = False
