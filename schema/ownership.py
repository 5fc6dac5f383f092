"""The owners of the tables: an owner's triggers, rules and defaults run as the role that writes."""

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.errors import SchemaError

from .drift import Drift, Part
from .named_statements import execute, read, statement
from .tables import expected_shape

_SHOWN: Final = 3


class Owned(NamedTuple):
    """A row of ``schema_owners``."""

    relation: str | None
    kind: Part
    owner: str
    is_trusted: bool
    me: str
    may_all: bool
    has_more: bool
    has_row_security: bool
    options: str | None

    def name_in(self, schema: str) -> str:
        """The name in messages."""
        return schema if self.relation is None else f"{schema}.{self.relation}"


class _More(NamedTuple):
    """A row of ``schema_triggers``."""

    relation: str
    part: Part
    name: str


def refuse_others(connection: Connection, schema: str) -> None:
    """Raise `SchemaError` if another role owns the schema or one of our tables and views in it.

    The owner must be the current role, a role that it is a member of, or a superuser.
    """
    owned = _read_owned(connection, schema)
    if others := _owned_by_others(owned, _acting_roles(connection, owned)):
        owner, me = others[0].owner, others[0].me
        theirs = [f"{each.kind} {each.name_in(schema)}" for each in others if each.owner == owner]
        more = f" and {len(theirs) - _SHOWN} more" if len(theirs) > _SHOWN else ""
        raise SchemaError(
            f"role {owner} owns {', '.join(theirs[:_SHOWN])}{more}, and role {me} is no member "
            "of it: an owner can let code run as each role that reads or writes. Drop what a "
            f"stranger has made; if {owner} is the owner of your tables, run this as that role"
        )


def owner_drifts(connection: Connection, schema: str) -> Iterator[Drift]:
    """What belongs to another role, and notes on what an owner has added.

    A role that owns none of the tables, as that of an operator, gets a note that names their owner.
    A superuser must not read the tables of another role, as `refuse_others` says.
    """
    owned = _read_owned(connection, schema)
    acting = _acting_roles(connection, owned)
    others = _owned_by_others(owned, acting)
    tables = [each for each in owned if each.relation is not None]
    of_tables = Counter(each.owner for each in _owned_by_others(tables, acting))
    is_looking = not any(each.owner in acting or each.may_all for each in tables)
    if of_tables and is_looking:
        ((owner, _),) = of_tables.most_common(1)
        others = [each for each in others if each.owner != owner]
        me = owned[0].me
        text = f"role {owner} owns the tables of schema {schema}, and role {me} is no member of it"
        yield Drift("note", "schema", schema, text)
    for each in others:
        text = (
            f"role {each.owner} owns {each.kind} {each.name_in(schema)}, and can let code run as "
            "each role that uses it: drop it if a stranger has made it, else let one role own all"
        )
        yield Drift("different", each.kind, each.relation or schema, text)
    yield from _notes(connection, schema, owned)


def _notes(connection: Connection, schema: str, owned: Sequence[Owned]) -> Iterator[Drift]:
    for each in owned:
        name = each.name_in(schema)
        if each.has_row_security:
            text = f"row security is on for {name}: roles see and write what its policies allow"
            yield Drift("note", "table", each.relation or "", text)
        if each.options:
            yield Drift("note", "view", each.relation or "", f"{name} has options: {each.options}")
    if any(each.has_more for each in owned):
        query = statement("schema_triggers", schema)
        for found in read(connection, query, _More, _names(schema)):
            name = f"{schema}.{found.relation}"
            text = f"{name} has the {found.part} {found.name}, which is not of this version"
            yield Drift("note", found.part, f"{found.relation}.{found.name}", text)


def _read_owned(connection: Connection, schema: str) -> list[Owned]:
    """The owners of the schema and our relations. The schema public is the database's, not ours."""
    rows = read(connection, statement("schema_owners", schema), Owned, _names(schema))
    return [each for each in rows if each.relation is not None or schema != "public"]


def _acting_roles(connection: Connection, owned: Collection[Owned]) -> set[str]:
    """The current role and, if they matter, the roles that it is a member of."""
    if all(each.is_trusted for each in owned):
        return {each.me for each in owned}
    query = statement("roles_acting", "")
    return {role for (role,) in execute(connection, query).fetchall()}


def _owned_by_others(owned: Iterable[Owned], acting: Container[str]) -> list[Owned]:
    return [each for each in owned if not each.is_trusted and each.owner not in acting]


def _names(schema: str) -> dict[str, str]:
    return {"schema": schema, "names": array_literal(expected_shape())}
