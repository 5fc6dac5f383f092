"""Find every difference between a database and what this version needs."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from dsql_outbox.outbox import Connection, Database
from dsql_outbox.schema.drift_kind import Drift
from dsql_outbox.schema.migrator.execution import execute
from dsql_outbox.schema.migrator.migration import migrations
from dsql_outbox.schema.migrator.migrator import Recorded, changed_text, read_recorded
from dsql_outbox.schema.migrator.remedies import Remedies, is_shard
from dsql_outbox.schema.migrator.shape import Shape, read_indexes, read_shape
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.roles.rights import Roles, right_drifts

from .comparison import Comparison


def check(database: Database, roles: Roles | None = None) -> list[Drift]:
    """Return all differences and change nothing; an empty list means that this version runs here.

    Reads the catalog, the recorded migrations, the leases, one outbox row per
    shard, and the rights of the named `roles`. A migration that must wait for the
    end of a deploy is not a difference. Raises the driver's errors.
    """
    with database.connect() as connection:
        return list(_drifts(connection, database.schema, roles or Roles()))


def _drifts(connection: Connection, schema: str, roles: Roles) -> Iterator[Drift]:
    shape = read_shape(connection, schema)
    if shape is None:
        text = f"schema {schema} is missing: run {Remedies(schema).apply()}"
        yield Drift("missing_schema", schema, text)
        return
    recorded = read_recorded(connection, schema, shape)
    yield from _migration_drifts(schema, recorded)
    indexes = read_indexes(connection, schema)
    yield from Comparison(schema, shape, indexes, frozenset(recorded)).drifts()
    if "outbox_leases" in shape:
        yield from _shard_drifts(connection, schema, shape)
    yield from right_drifts(connection, schema, shape, roles)


def _migration_drifts(schema: str, recorded: Mapping[int, Recorded]) -> Iterator[Drift]:
    known = {migration.version: migration for migration in migrations()}
    needed = max(version for version, found in known.items() if found.deploy == "before")
    for version, migration in known.items():
        found = recorded.get(version)
        if found is None:
            if version > needed:
                continue  # it ends the deploy of this version, and may be applied at any later time
            text = (
                f"migration {migration.label} of schema {schema} was not applied, or not recorded"
            )
            remedy = Remedies(schema).apply(deploy=migration.deploy)
            yield Drift("missing_migration", migration.label, f"{text}: run {remedy}")
        elif found.checksum != migration.checksum:
            text = changed_text(schema, migration, found)
            yield Drift("changed_migration", migration.label, text)
    for version in recorded.keys() - known.keys():
        label = f"{version:04} {recorded[version].name}"
        text = (
            f"migration {label} of schema {schema} comes from a newer version of dsql-outbox; "
            f"this one knows up to {max(known):04}: run pip install --upgrade dsql-outbox"
        )
        yield Drift("newer_migration", label, text)


def _shard_drifts(connection: Connection, schema: str, shape: Shape) -> Iterator[Drift]:
    found = [row[0] for row in execute(connection, statement("shard_list", schema))]
    leased = [shard for shard in found if is_shard(shard)]
    remedies = Remedies(schema)
    for shard in found:
        if not is_shard(shard):
            text = f"schema {schema} has a lease row of shard {shard}, which no writer uses"
            remedy = remedies.forget_lease(shard)
            yield Drift("orphaned_shard", str(shard), f"{text}: run {remedy}")
    if not leased:
        text = f"schema {schema} has no shards: run {remedies.apply()}"
        yield Drift("missing_shards", "outbox_leases", text)
        return
    for below, above in pairwise([-1, *leased]):
        if above - below > 1:
            gap = f"schema {schema} lacks the lease rows of shards {below + 1} to {above - 1}"
            yield Drift("missing_shards", "outbox_leases", f"{gap}: run {remedies.apply()}")
    if "outbox_backlog" in shape:
        yield from _orphan_drifts(connection, schema, leased[-1])


def _orphan_drifts(connection: Connection, schema: str, highest: int) -> Iterator[Drift]:
    for (shard,) in execute(connection, statement("shards_orphaned", schema)):
        remedy = Remedies(schema).relay_shard(shard, highest)
        text = f"messages wait in shard {shard} of schema {schema}, which has no lease row"
        yield Drift("orphaned_shard", str(shard), f"{text}: run {remedy}")
