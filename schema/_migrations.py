"""The migrations that ship with this version, in order.

Rules for a new one: a file ``000N_name.sql`` with one DDL statement that may run
twice (``IF NOT EXISTS``, ``OR REPLACE``), for DSQL takes one DDL a transaction
and a crash may fall between the statement and its record. Code of the version
before must run on the new tables. A file that was released never changes.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import LiteralString

from ._statements import FOLDER, read_sql, render, statement


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `text` is its SQL before the schema's name is filled in."""

    version: int
    name: str
    text: LiteralString

    @property
    def label(self) -> str:
        """How people see it: ``0004 outbox``."""
        return f"{self.version:04} {self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hex: the same for every schema's name."""
        return sha256(self.text.encode()).hexdigest()

    def ddl(self, schema: str) -> bytes:
        """The statement that makes the change."""
        return render(self.text, schema)

    def record(self, schema: str) -> bytes:
        """The statement that remembers the change."""
        return statement(
            "migration_record",
            schema,
            version=self.version,
            name=self.name,
            checksum=self.checksum,
        )


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations of this version, first to last."""
    names = (entry.name for entry in (FOLDER / "migrations").iterdir())
    return tuple(_load(name.removesuffix(".sql")) for name in sorted(names))


def _load(stem: str) -> Migration:
    version, _, name = stem.partition("_")
    return Migration(int(version), name, read_sql("migrations", stem))
