"""Migrations of a version to come, as files beside those that ship."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import dsql_outbox.schema
from dsql_outbox.outbox import Database, SchemaError
from dsql_outbox.schema import apply, named_statements, plan
from dsql_outbox.schema.migrator import migration, migration_text, shape

SHIPPED = Path(dsql_outbox.schema.__file__).parent

NEXT = {
    "note": "ALTER TABLE {schema}.business_events ADD COLUMN IF NOT EXISTS note varchar(255)",
    "by_name": "CREATE INDEX ASYNC IF NOT EXISTS by_name"
    " ON {schema}.business_events (event_name, id)",
    "after_note": "UPDATE {schema}.business_events SET note = event_name\nWHERE note IS NULL",
    "rank": "ALTER TABLE {schema}.entities ADD COLUMN IF NOT EXISTS rank bigint",
    "after_rank": "UPDATE {schema}.entities SET rank = version\nWHERE rank IS NULL",
}
"""Two versions to come: one ends with `after_note`, the other with `after_rank`."""


def labels(*names: str) -> tuple[str, ...]:
    """The migrations of these names, as the version that has them shows them."""
    return tuple(found.label for found in migration.migrations() if found.name in names)


def add_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Make a copy of what ships in `folder`, with these migrations after the others."""
    for kind in ("migrations", "statements", "grants"):
        shutil.copytree(SHIPPED / kind, folder / kind)
    first = 1 + max(int(file.name[:4]) for file in (folder / "migrations").iterdir())
    for number, (name, text) in enumerate(texts.items(), first):
        file = folder / "migrations" / f"{number:04}_{name}.sql"
        file.write_text(f"-- For a test.\n{text}\n")


@contextmanager
def shipped_from(folder: Path) -> Iterator[None]:
    """Be the version whose files are in `folder`."""
    before = named_statements.FOLDER
    _use(folder)
    yield
    _use(before)


def finish(database: Database) -> None:
    """Go through all phases of all deploys, from wherever they were stopped."""
    while steps := plan(database):
        # The last phase of an earlier version may stand in the way; it comes next then.
        with suppress(SchemaError):
            apply(database, deploy=steps[0].deploy)


def _use(folder: object) -> None:
    named_statements.FOLDER = folder  # type: ignore[misc, assignment]
    for cached in (migration.migrations, migration_text.forms, shape.expected):
        cached.cache_clear()
