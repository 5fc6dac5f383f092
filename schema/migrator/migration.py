"""The migrations that ship with this version, in order.

docs/migrations.md has their rules. A file holds one statement, of a form that
`migration_text` can parse, and the statement may run twice. Code of the version
before must work on the new tables. A released file never changes.
"""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Literal, LiteralString

from dsql_outbox.schema.named_statements import names, read_sql, render, statement

Deploy = Literal["before", "after"]
"""When to apply a migration: before or after the deploy of the version that brings it."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; `text` is its SQL, with ``{schema}`` in place of the schema's name."""

    version: int
    name: str
    text: LiteralString

    @property
    def label(self) -> str:
        """The name in messages and output, such as ``0004 outbox``."""
        return f"{self.version:04} {self.name}"

    @property
    def deploy(self) -> Deploy:
        """The phase of the deploy: a name that begins with ``after_`` means ``after``."""
        return "after" if self.name.startswith("after_") else "before"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text in hex; it does not depend on the schema's name."""
        return sha256(self.text.encode()).hexdigest()

    def ddl(self, schema: str) -> bytes:
        """The statement of the file, for a schema."""
        return render(self.text, schema)

    def record(self, schema: str) -> bytes:
        """The statement that records the migration as applied."""
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
