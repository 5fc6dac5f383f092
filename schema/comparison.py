"""How a database differs from what this version needs: what is missing, different or extra."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError

from .commands import apply_command
from .drift import Drift
from .migrator import MAX_SHARDS, Recorded, older_text, read_recorded
from .named_statements import execute, statement
from .ownership import owner_drifts
from .right_drifts import right_drifts
from .roles import Roles
from .tables import (
    Relation,
    Shape,
    TableSet,
    expected_shape,
    has_inbox_alone,
    migrations,
    read_shape,
)


def check(
    database: Database, roles: Roles | None = None, *, tables: TableSet = "all"
) -> list[Drift]:
    """Return all differences and change nothing. Without any but notes, this version runs here.

    With ``tables="inbox"`` only the tables of the inbox must be there, and only the role of the
    consumer may be named, since the others need more.

    Reads the catalog, the recorded migrations, the leases, one outbox row per
    shard, and the rights of the named `roles`. Tables that are not of the outbox are
    ignored. Raises `SettingsError` for such a role, and the driver's errors.
    """
    roles = roles or Roles()
    others = [duty for duty, _ in roles.assignments() if duty != "consumer"]
    if tables == "inbox" and others:
        raise SettingsError(
            f"a {others[0]} needs more tables than those of the inbox: "
            "name the consumer alone, or check all tables"
        )
    with database.connect() as connection:
        return list(_drifts(connection, database.schema, roles, tables))


def _drifts(connection: Connection, schema: str, roles: Roles, tables: TableSet) -> Iterator[Drift]:
    run = f"run {apply_command(schema, inbox=tables == 'inbox')}"
    shape = read_shape(connection, schema)
    if shape is None:
        yield Drift("missing", "schema", schema, f"schema {schema} is missing: {run}")
        return
    owners = list(owner_drifts(connection, schema))
    yield from owners
    if not all(drift.is_note for drift in owners):
        return  # a view of a stranger runs code when it is read
    recorded = read_recorded(connection, schema, shape)
    if older := older_text(schema, recorded):
        yield Drift("different", "schema", schema, older)
        return
    if tables == "all" and has_inbox_alone(shape, [each.name for each in recorded.values()]):
        text = f"schema {schema} has the tables of the inbox alone: {run} for the others"
        yield Drift("missing", "schema", schema, text)
        tables = "inbox"
    for wanted in expected_shape(tables).values():
        yield from _relation_drifts(schema, wanted, shape.get(wanted.name), run)
    yield from _migration_drifts(schema, shape, recorded, tables, run)
    if tables == "all" and "outbox_leases" in shape:
        yield from _shard_drifts(connection, schema, shape)
    yield from right_drifts(connection, schema, shape, roles)


def _relation_drifts(
    schema: str, wanted: Relation, found: Relation | None, run: str
) -> Iterator[Drift]:
    name = f"{schema}.{wanted.name}"
    if found is None:
        text = f"{wanted.kind} {name} is missing: {run}"
        yield Drift("missing", wanted.kind, wanted.name, text)
        return
    if found.view != wanted.view:
        text = f"{name} is a {found.kind}, must be a {wanted.kind}: rename it"
        text = f"{text}, then {run}"
        yield Drift("different", wanted.kind, wanted.name, text)
        return
    yield from _column_drifts(schema, wanted, found, run)
    if found.key != wanted.key:
        text = (
            f"the primary key of {name} is ({', '.join(found.key)}), "
            f"must be ({', '.join(wanted.key)}): alter the table"
        )
        yield Drift("different", "key", wanted.name, text)


def _column_drifts(schema: str, wanted: Relation, found: Relation, run: str) -> Iterator[Drift]:
    there = {column.name: column for column in found.columns}
    remedy = f"drop the view, then {run}" if wanted.view else "alter the table"
    for column in wanted.columns:
        name = f"{wanted.name}.{column.name}"
        present = there.pop(column.name, None)
        if present is None:
            text = f"column {schema}.{name} is missing, must be {column}: {remedy}"
            yield Drift("missing", "column", name, text)
        elif present != column:
            text = f"column {schema}.{name} is {present}, must be {column}: {remedy}"
            yield Drift("different", "column", name, text)
    for column in there.values():
        name = f"{wanted.name}.{column.name}"
        text = f"column {schema}.{name} is unknown to this version: a newer one may have added it"
        if column.required:
            text = (
                f"{text}. It is {column}, so without a default no row can be written: drop NOT NULL"
            )
        yield Drift("extra" if column.required else "note", "column", name, text)


def _migration_drifts(
    schema: str, shape: Shape, recorded: Mapping[int, Recorded], tables: TableSet, run: str
) -> Iterator[Drift]:
    for migration in migrations(tables):
        # Else the relation is reported.
        if migration.version not in recorded and migration.name in shape:
            text = f"migration {migration.label} of schema {schema} is not recorded: {run}"
            yield Drift("missing", "migration", migration.label, text)
    known = {migration.version for migration in migrations()}
    for version in recorded.keys() - known:
        label = recorded[version].label
        text = (
            f"migration {label} of schema {schema} comes from a newer version of dsql-outbox; this "
            f"one knows up to {max(known):04}, and runs beside the newer one and after it"
        )
        yield Drift("note", "migration", label, text)


def _shard_drifts(connection: Connection, schema: str, shape: Shape) -> Iterator[Drift]:
    found = [row[0] for row in execute(connection, statement("shard_list", schema))]
    leased = [shard for shard in found if _is_shard(shard)]
    for shard in found:
        if not _is_shard(shard):
            text = f"schema {schema} has a lease row of shard {shard}, which no writer uses"
            yield _extra_shard(schema, "outbox_leases", shard, text)
    if not leased:
        text = f"schema {schema} has no shards: run {apply_command(schema)}"
        yield Drift("missing", "shard", "outbox_leases", text)
        return
    for below, above in pairwise([-1, *leased]):
        if above - below > 1:
            gap = f"schema {schema} lacks the lease rows of shards {below + 1} to {above - 1}"
            yield Drift("missing", "shard", "outbox_leases", f"{gap}: run {apply_command(schema)}")
    if "outbox_backlog" in shape:
        yield from _orphan_drifts(connection, schema, leased[-1])


def _orphan_drifts(connection: Connection, schema: str, highest: int) -> Iterator[Drift]:
    for (shard,) in execute(connection, statement("shards_orphaned", schema)):
        text = f"messages wait in shard {shard} of schema {schema}, which has no lease row"
        if _is_shard(shard):
            command = apply_command(schema, max(shard, highest) + 1)
            yield Drift("extra", "shard", str(shard), f"{text}: run {command}")
        else:
            yield _extra_shard(schema, "outbox", shard, text)


def _extra_shard(schema: str, table: str, shard: int, text: str) -> Drift:
    command = f'DELETE FROM "{schema}"."{table}" WHERE shard = {shard}'  # noqa: S608 - shown
    return Drift("extra", "shard", str(shard), f"{text}: run {command}")


def _is_shard(shard: int) -> bool:
    """Whether a writer may use a shard of this number."""
    return 0 <= shard < MAX_SHARDS
