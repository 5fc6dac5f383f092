"""What roles lack for their duties, and what they have beyond them.

``schema/grants/`` says what a duty needs. Whatever else lets the role act on our tables is beyond
it: a right on a table, a column, the schema or the database, the option to pass a right on,
ownership, an attribute such as BYPASSRLS, and PostgreSQL's predefined roles. It counts whether it
was granted to the role, to everybody (PUBLIC), or to a role that this one is a member of.

Each remedy takes away exactly what is too much, so that a process of the role continues.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import psycopg

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.redaction import error_line

from .commands import grant_command
from .drift import Drift
from .named_statements import read, statement
from .roles import Duty, Held, Roles, create_role, grants, present_roles, quoted, read_held
from .tables import Shape, expected_shape

_OWNER: Final = "OWNER"

_OF_EVERYBODY: Final = ("CONNECT", "TEMPORARY")
"""The rights on a database that PUBLIC has from the beginning."""

_PREDEFINED: Final = "pg_"
"""The beginning of the names of predefined roles. No other role may have such a name."""

_HARMLESS: Final = "pg_read_all_stats"
"""The predefined role that `doctor` may ask for."""

_SHOWN: Final = 3

_Place = tuple[str, str]
"""A kind and a name: of the schema, of a table or view, or of the database."""


class _Granted(NamedTuple):
    """A row of ``rights_granted``."""

    kind: str
    name: str
    field: str | None
    owner: str
    grantee: str | None
    grantor: str
    held: str
    is_grantable: bool

    @property
    def place(self) -> _Place:
        """What the right is on."""
        return self.kind, self.name

    @property
    def other_grantor(self) -> str:
        """The role that has granted it, or nothing if the owner has."""
        return "" if self.grantor == self.owner else self.grantor


class _Reached(NamedTuple):
    """A row of ``roles_reached``."""

    role: str
    first: str | None
    acting: str
    grantor: str | None
    has_passed_on: bool
    attributes: str


class _Rights(NamedTuple):
    """What some roles hold, the roles that they may act as, and what anybody was granted."""

    held: Held
    reached: Sequence[_Reached]
    granted: Sequence[_Granted]


def right_drifts(
    connection: Connection, schema: str, shape: Shape, roles: Roles
) -> Iterator[Drift]:
    """Roles that do not exist or are superusers, and rights that are missing or needless."""
    named = roles.by_name()
    if not named:
        return
    superusers = present_roles(connection, schema, named)
    for role in named:
        if role not in superusers:
            text = f"role {role} does not exist: run {create_role(role)}"
            yield Drift("missing", "role", role, text)
        elif superusers[role]:
            text = (
                f"role {role} is a superuser, which may do everything: "
                f"name a role of its own, or run ALTER ROLE {quoted(role)} NOSUPERUSER"
            )
            yield Drift("different", "role", role, text)
    duties = {role: duties for role, duties in named.items() if superusers.get(role) is False}
    held = read_held(connection, schema, duties)
    try:
        rights = _read_all(connection, schema, held)
    except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        rights = _Rights(held, (), _by_the_owner(schema, held))
        text = (
            f"this server does not show all rights ({error_line(error)}): only SELECT, INSERT, "
            "UPDATE and DELETE on whole tables were compared"
        )
        yield Drift("note", "right", schema, text)
    yield from _Comparison(schema, shape, duties, rights).drifts()


def _read_all(connection: Connection, schema: str, held: Held) -> _Rights:
    roles = {"roles": array_literal(held)}
    things = {"schema": schema, "names": array_literal(expected_shape())}
    return _Rights(
        held,
        read(connection, statement("roles_reached", schema), _Reached, roles),
        read(connection, statement("rights_granted", schema), _Granted, things),
    )


def _by_the_owner(schema: str, held: Held) -> Sequence[_Granted]:
    """What roles hold in any way, as if the owner of the tables had granted it to them."""
    return [
        _Granted(*_place(schema, name), None, "", role, "", right, is_grantable=False)
        for role, rights in held.items()
        for name, right in rights
        if name is None or name in expected_shape()
    ]


class _Comparison:
    """The rights of roles beside those that their duties need."""

    def __init__(
        self, schema: str, shape: Shape, duties: Mapping[str, Sequence[Duty]], rights: _Rights
    ) -> None:
        self._schema = schema
        self._duties = duties
        self._needed = {role: _needs(schema, shape, each) for role, each in duties.items()}
        self._held = {
            role: {(_place(schema, name), right) for name, right in held}
            for role, held in rights.held.items()
        }
        self._reached = rights.reached
        self._granted: dict[str | None, list[_Granted]] = {}
        for each in rights.granted:
            self._granted.setdefault(each.grantee, []).append(each)
        self._passed_on = {
            (each.place, each.held, each.grantor) for each in rights.granted if each.other_grantor
        }
        self._before = self._grant_before()

    def drifts(self) -> Iterator[Drift]:
        """The differences of each role."""
        for role in self._duties:
            yield from self._missing(role)
            yield from self._owned(role)
            yield from self._needless(role, role)
            yield from self._needless(role, None)
            yield from self._attributes(role)
            yield from self._memberships(role)

    def _grant_before(self) -> str:
        """The step before a REVOKE, if that could take what a role has by others and needs."""
        for role, needed in self._needed.items():
            own = {
                (each.place, each.held)
                for each in self._granted.get(role, ())
                if each.field is None and not each.other_grantor
            }
            wanted = {(place, right) for place, rights in needed.items() for right in rights}
            if (wanted & self._held[role]) - own - {(("schema", "public"), "USAGE")}:
                named: dict[str, str] = {
                    duty: each for each, duties in self._duties.items() for duty in duties
                }
                return f"{grant_command(self._schema, named)}, then "
        return ""

    def _missing(self, role: str) -> Iterator[Drift]:
        for place, rights in self._needed[role].items():
            lacking = [right for right in rights if (place, right) not in self._held[role]]
            if lacking:
                what = self._named(place)
                remedy = grant_command(self._schema, dict.fromkeys(self._duties[role], role))
                text = (
                    f"role {role} lacks {', '.join(dict.fromkeys(lacking))} on {what}, "
                    f"which a {self._duty(role)} needs: run {remedy}"
                )
                yield Drift("missing", "right", f"{role} {what}", text)

    def _owned(self, role: str) -> Iterator[Drift]:
        if owned := [each for each in self._granted.get(role, ()) if each.held == _OWNER]:
            things = _some([self._named(each.place) for each in owned])
            text = (
                f"role {role} owns {things}, and an owner may do everything: "
                f"name a role of its own for the {self._duty(role)}"
            )
            yield Drift("extra", "right", f"{role} {owned[0].name}", text)

    def _needless(self, role: str, grantee: str | None) -> Iterator[Drift]:
        """What was granted to `grantee`, which is the role or everybody. One REVOKE each."""

        def revoke(right: _Granted) -> tuple[_Place, str, bool]:
            return right.place, right.other_grantor, self._is_needed(role, right)

        for key, found in groupby(sorted(self._beyond(role, grantee), key=revoke), revoke):
            place, grantor, is_needed = key
            rights = list(found)
            what, listed = self._named(place), _listed(rights, str)
            has = f"may pass on {listed}" if is_needed else f"has {listed}"
            whose = " as everybody has (PUBLIC)" if grantee is None else ""
            remedy = self._revoke(rights, grantor, only_option=is_needed)
            text = (
                f"role {role} {has} on {what}{whose}, "
                f"which a {self._duty(role)} does not need: run {self._before}{remedy}"
            )
            yield Drift("extra", "right", f"{role} {what}", text)

    def _revoke(self, rights: Sequence[_Granted], grantor: str, *, only_option: bool) -> str:
        first = rights[0]
        kind = "" if first.kind == "table" else f"{first.kind.upper()} "
        names = (self._schema, first.name) if first.kind == "table" else (first.name,)
        option = "GRANT OPTION FOR " if only_option else ""
        grantee = "PUBLIC" if first.grantee is None else quoted(first.grantee)
        is_passed_on = any((r.place, r.held, r.grantee) in self._passed_on for r in rights)
        text = (
            f"REVOKE {option}{_listed(rights, quoted)} ON {kind}{quoted(*names)} FROM {grantee}"
            f"{' CASCADE' if is_passed_on else ''}"
        )
        # It takes back only what the current role has granted. The owner's is the usual one.
        return f"SET ROLE {quoted(grantor)}; {text}; RESET ROLE" if grantor else text

    def _attributes(self, role: str) -> Iterator[Drift]:
        for each in self._reached:
            if each.role == role and each.first is None and each.attributes:
                attributes = each.attributes.split()
                remedy = " ".join(f"NO{attribute}" for attribute in attributes)
                text = (
                    f"role {role} has {', '.join(attributes)}, which a {self._duty(role)} does "
                    f"not need: run ALTER ROLE {quoted(role)} {remedy}"
                )
                yield Drift("extra", "role", role, text)

    def _memberships(self, role: str) -> Iterator[Drift]:
        """The memberships of the role itself by which it gets more than it needs."""
        mine = [each for each in self._reached if each.role == role]
        for first, found in groupby(mine, lambda each: each.first):
            ways = list(found)
            acting = list(dict.fromkeys((each.acting, each.attributes) for each in ways))
            brought = [what for each in acting for what in self._brought(role, *each)]
            if first is None or not brought:
                continue
            cascade = " CASCADE" if ways[0].has_passed_on else ""
            revokes = [
                f"REVOKE {quoted(first)} FROM {quoted(role)}"
                f"{f' GRANTED BY {quoted(grantor)}' if grantor else ''}{cascade}"
                for grantor in dict.fromkeys(each.grantor for each in ways)
            ]
            text = (
                f"role {role} is a member of {first}, by which it gets {_some(brought)}, which a "
                f"{self._duty(role)} does not need: run {self._before}{'; '.join(revokes)}"
            )
            yield Drift("extra", "right", f"{role} {first}", text)

    def _brought(self, role: str, acting: str, attributes: str) -> Iterator[str]:
        """What the role gets by acting as another one."""
        if acting.startswith(_PREDEFINED) and acting != _HARMLESS:
            yield f"what {acting} may do"
        yield from attributes.split()
        for each in self._granted.get(acting, ()):
            if each.held == _OWNER:
                yield f"ownership of {self._named(each.place)}"
        for each in self._beyond(role, acting):
            option = " with GRANT OPTION" if self._is_needed(role, each) else ""
            yield f"{_listed([each], str)} on {self._named(each.place)}{option}"

    def _beyond(self, role: str, grantee: str | None) -> Iterator[_Granted]:
        """What was granted to `grantee` and is beyond what `role` needs, but for an owner's own."""
        for each in self._granted.get(grantee, ()):
            is_owners = each.grantee == each.owner
            if not is_owners and (each.is_grantable or not self._is_needed(role, each)):
                yield each

    def _is_needed(self, role: str, right: _Granted) -> bool:
        """Whether the role needs the right, if not the option to pass it on."""
        if right.kind == "database":
            return right.held in _OF_EVERYBODY
        return right.held in self._needed[role].get(right.place, ())

    def _named(self, place: _Place) -> str:
        kind, name = place
        return f"{self._schema}.{name}" if kind == "table" else f"{kind} {name}"

    def _duty(self, role: str) -> str:
        return " and ".join(self._duties[role])


def _place(schema: str, table: str | None) -> _Place:
    return ("schema", schema) if table is None else ("table", table)


def _needs(schema: str, shape: Shape, duties: Sequence[Duty]) -> Mapping[_Place, Sequence[str]]:
    """What duties need of what is there: a table that is missing is told as the table."""
    needed: dict[_Place, list[str]] = {}
    for duty in duties:
        for grant in grants(duty):
            if grant.name is None or grant.name in shape:
                needed.setdefault(_place(schema, grant.name), []).extend(grant.rights)
    return needed


def _listed(rights: Sequence[_Granted], shown: Callable[[str], str]) -> str:
    """The rights of one thing, each with its columns unless it is on the whole."""
    whole = {each.held for each in rights if each.field is None}
    listed = sorted(whole)
    for held in sorted({each.held for each in rights} - whole):
        fields = [shown(each.field) for each in rights if each.held == held and each.field]
        listed.append(f"{held} ({', '.join(fields)})")
    return ", ".join(listed)


def _some(things: Sequence[str]) -> str:
    more = f" and {len(things) - _SHOWN} more" if len(things) > _SHOWN else ""
    return f"{', '.join(things[:_SHOWN])}{more}"
