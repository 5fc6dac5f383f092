"""What the database itself shows that stops publishers: no writes, or rights that are missing."""

from typing import Final

import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.roles import rights_beyond
from dsql_outbox.schema.session import Session

_ROLES: Final = 10


class ShortRole(msgspec.Struct, frozen=True, rename="camel"):
    """A role that has a part of a publisher's rights; `lacks` are the others: RIGHT on TABLE."""

    role: str
    lacks: tuple[str, ...]


class Obstacles(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What stops publishers. `read_only`: the server says that it accepts no writes."""

    read_only: bool = False
    roles: tuple[ShortRole, ...] = ()


NONE: Final = Obstacles()


async def read_obstacles(session: Session) -> Obstacles:
    """Look for what stops publishers; call it only while one is missing."""
    schema = {"schema": session.schema}
    rows = await session.fetch_rows("roles_publishing", schema, shown=_ROLES)
    roles = [str(name) for (name,) in rows]
    held: dict[str, set[tuple[str | None, str]]] = {role: set() for role in roles}
    if roles:
        parameters = {**schema, "roles": array_literal(roles)}
        for role, name, right in await session.fetch_rows("rights_present", parameters):
            held[role].add((name, right))
    lacking = tuple(
        ShortRole(role, tuple(f"{right} on {name or 'the schema'}" for right, name in lacks))
        for role, found in held.items()
        if (lacks := rights_beyond("publisher", found))
    )
    if session.accepts_writes and not lacking:
        return NONE
    return Obstacles(read_only=not session.accepts_writes, roles=lacking)
