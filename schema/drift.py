"""How a database differs from what this version needs, and the command that repairs it."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import pairwise

from dsql_outbox.outbox import Connection, Database
from dsql_outbox.schema.drift_kind import Drift
from dsql_outbox.schema.migrator.migration import Migration, migrations
from dsql_outbox.schema.migrator.migration_text import Column, Index, Relation
from dsql_outbox.schema.migrator.migrator import Recorded, changed_text, read_recorded
from dsql_outbox.schema.migrator.remedies import Remedies, is_shard
from dsql_outbox.schema.migrator.shape import FoundIndex, Shape, expected, read_indexes, read_shape
from dsql_outbox.schema.named_statements import execute, statement
from dsql_outbox.schema.roles import Roles, right_drifts


class Comparison:
    """The comparison of one schema.

    `shape` and `indexes` come from the catalog; `recorded` are the versions
    of the migrations that were applied.
    """

    def __init__(
        self,
        schema: str,
        shape: Shape,
        indexes: Mapping[str, FoundIndex],
        recorded: AbstractSet[int],
    ) -> None:
        self._schema = schema
        self._shape = shape
        self._indexes = indexes
        self._recorded = recorded
        self._remedies = Remedies(schema)

    def drifts(self) -> Iterator[Drift]:
        """Every difference, in the order of the migrations.

        Tables and indexes that no migration makes are ignored.
        """
        for migration, wanted in expected().relations.values():
            found = self._shape.get(wanted.name)
            if found is None or found.view != wanted.view:
                yield from self._missing(migration, wanted, found)
            elif wanted.view:
                yield from self._view(migration, wanted, found)
            else:
                yield from self._table(wanted, found)
        for migration, index in expected().indexes.values():
            if migration.version in self._recorded:
                yield from self._index(migration, index, self._indexes.get(index.name))

    def _missing(
        self, migration: Migration, wanted: Relation, namesake: Relation | None
    ) -> Iterator[Drift]:
        if migration.version not in self._recorded:
            return  # the caller reports the missing migration instead
        what = "view" if wanted.view else "table"
        remedy = self._remedies.apply_again(migration)
        if namesake is not None:
            remedy = f"{self._remedies.set_aside(namesake)}; {remedy}"
        text = f"{what} {self._schema}.{wanted.name} is missing: run {remedy}"
        yield Drift("missing_view" if wanted.view else "missing_table", wanted.name, text)

    def _view(self, migration: Migration, wanted: Relation, found: Relation) -> Iterator[Drift]:
        # If the newer form of the view was not applied yet, the caller reports that migration.
        if found.columns != wanted.columns and migration.version in self._recorded:
            text = (
                f"view {self._schema}.{wanted.name} has the columns {_listed(found)}, "
                f"must have {_listed(wanted)}: run {self._remedies.replace_view(wanted, migration)}"
            )
            yield Drift("wrong_view", wanted.name, text)

    def _table(self, wanted: Relation, found: Relation) -> Iterator[Drift]:
        there = {column.name: column for column in found.columns}
        known = {column.name for column in wanted.columns}
        for column in wanted.columns:
            maker = expected().added.get((wanted.name, column.name))
            # If the column was not added yet, the caller reports that migration.
            if column.name in there or maker is None or maker.version in self._recorded:
                yield from self._column(wanted, column, there.get(column.name))
        for column in found.columns:
            if column.name not in known:
                yield self._extra(wanted, column)
        if found.key != wanted.key:
            yield self._wrong_key(wanted, found)

    def _column(self, table: Relation, wanted: Column, found: Column | None) -> Iterator[Drift]:
        name = f"{table.name}.{wanted.name}"
        what = f"column {self._schema}.{name}"
        if found is None:
            text = f"{what} is missing: run {self._remedies.add_column(table, wanted)}"
            yield Drift("missing_column", name, text)
            return
        if found.type != wanted.type:
            text = f"{what} is {found.type}, must be {wanted.type}"
            yield Drift("wrong_type", name, f"{text}: run {self._remedies.set_type(table, wanted)}")
        if found.required != wanted.required:
            text = f"{what} must be NOT NULL" if wanted.required else f"{what} must accept NULL"
            yield Drift("wrong_null", name, f"{text}: run {self._remedies.set_null(table, wanted)}")

    def _index(
        self, migration: Migration, wanted: Index, found: FoundIndex | None
    ) -> Iterator[Drift]:
        what = f"index {self._schema}.{wanted.name}"
        if found is None:
            text = f"{what} is missing: run {self._remedies.apply_again(migration)}"
            yield Drift("missing_index", wanted.name, text)
            return
        remedy = f"{self._remedies.drop_index(wanted)}; {self._remedies.apply_again(migration)}"
        if found.index != wanted:
            text = f"{what} is on {_on(found.index)}, must be on {_on(wanted)}: run {remedy}"
            yield Drift("wrong_index", wanted.name, text)
        elif not found.valid:
            text = f"{what} is not valid, its build failed or still runs: run {remedy}"
            yield Drift("invalid_index", wanted.name, text)

    def _extra(self, table: Relation, column: Column) -> Drift:
        name = f"{table.name}.{column.name}"
        text = (
            f"column {self._schema}.{name} is unknown to this version: unless a newer "
            f"dsql-outbox made it, run {self._remedies.drop_column(table, column)}"
        )
        return Drift("extra_column", name, text)

    def _wrong_key(self, wanted: Relation, found: Relation) -> Drift:
        text = (
            f"the primary key of {self._schema}.{wanted.name} is ({', '.join(found.key)}), "
            f"must be ({', '.join(wanted.key)}): run {self._remedies.set_key(wanted)}"
        )
        return Drift("wrong_key", wanted.name, text)


def _on(index: Index) -> str:
    return f"{index.table} ({', '.join(index.columns)})"


def _listed(relation: Relation) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in relation.columns)


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
