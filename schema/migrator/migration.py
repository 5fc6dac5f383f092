"""The migrations that ship with this version, in order.

Their rules are in docs/migrations.md: one statement a file, of a form that
`_forms` knows, which may run twice; code of the version before must work on the
new tables; a file that was released never changes.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Literal, LiteralString

from dsql_outbox.schema.named_statements import names, read_sql, render, statement

Deploy = Literal["before", "after"]
"""Before or after the deploy of the version that brings a migration."""


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
    def deploy(self) -> Deploy:
        """A name that begins with ``after_`` waits until no older code runs any more."""
        return "after" if self.name.startswith("after_") else "before"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hex: the same for every schema's name."""
        return sha256(self.text.encode()).hexdigest()

    def ddl(self, schema: str) -> bytes:
        """The statement that makes the change, as the file has it."""
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
    return tuple(_load(stem) for stem in names("migrations"))


def _load(stem: str) -> Migration:
    version, _, name = stem.partition("_")
    return Migration(int(version), name, read_sql("migrations", stem))
