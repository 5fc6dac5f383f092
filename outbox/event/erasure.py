"""Remove what an event says of one entity. No I/O.

The part of an entity is its element of the event's entities: its attributes, and the members of
its header but its type, its id and its dates. The subject of an event owns also what belongs to
no entity: other members of the event and of its header. All else keeps its bytes.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from dsql_outbox.outbox.errors import SettingsError

_Members = dict[str, msgspec.Raw]

_members: Final = msgspec.json.Decoder(_Members).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_value: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

_EVENT_HEADER: Final = ("uuid", "eventName", "eventType", "createdDate", "savedDate")
_ENTITY_HEADER: Final = ("entityId", "entityType", "createdAt", "updatedAt")
_SHORTEST: Final = 3
"""Characters of the shortest value that is searched in headers: a shorter one is in too many."""


class Fields:
    """The fields to erase.

    A name is erased at any depth. A path such as ``$.address.street`` is one place in the
    attributes; it goes through arrays. Raises `SettingsError` for a malformed one.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.names: set[str] = set()
        self._paths: set[tuple[str, ...]] = set()
        for text in texts:
            parts = tuple(text.removeprefix("$.").split("."))
            if not all(parts) or text.startswith("$") is not text.startswith("$."):
                raise SettingsError(
                    f"{text!r} is no field: give a name, or a path as $.address.city"
                )
            if text.startswith("$."):
                self._paths.add(parts)
            elif len(parts) == 1:
                self.names.add(text)
            else:
                raise SettingsError(f"{text!r} is no field: write the path as $.{text}")
        if not self.names and not self._paths:
            raise SettingsError("no field is named")

    @property
    def texts(self) -> list[str]:
        """The names and the paths, sorted."""
        return sorted([*self.names, *("$." + ".".join(path) for path in self._paths)])

    def has(self, path: tuple[str, ...]) -> bool:
        """Whether the member with this path is to be erased."""
        return path[-1] in self.names or path in self._paths


class Erased(NamedTuple):
    """An event without what was erased; `values` are the erased texts and numbers, as text."""

    data: str
    values: frozenset[str]

    def is_named_in(self, text: str) -> bool:
        """Whether a text holds an erased value."""
        return any(len(value) >= _SHORTEST and value in text for value in self.values)


class EntityErasure(NamedTuple):
    """What is erased of an entity: the `fields`, or all if None.

    With `pseudonym`, the id of the entity becomes that.
    """

    entity_type: str
    entity_id: str
    fields: Fields | None = None
    pseudonym: str | None = None

    def of_event(self, data: str, *, is_subject: bool) -> Erased | None:
        """The event without the entity's part; None if nothing is to be erased in it."""
        work = _Work(self)
        document = _members(data)
        older = "entities" not in document
        body = _members(document["eventBody"]) if older else document
        elements = [work.element(raw, older=older) for raw in _elements(body["entities"])]
        if work.is_changed:
            body["entities"] = _raw(elements)
        if is_subject:
            work.begin_own(_has_doubles_beside(data))
            members = _members(document["eventHeader"])
            header = work.own(members, _EVENT_HEADER)
            if work.recodes or header is not None:
                document["eventHeader"] = _raw(header or members)
            body = work.own(body, ("eventHeader", "entities")) or body
        if older:
            document["eventBody"] = _raw(body)
            if is_subject:
                document = work.own(document, ("eventHeader", "eventBody")) or document
        else:
            document = body
        if not work.is_changed:
            return None
        return Erased(_encode(document).decode(), frozenset(work.values))

    def of_state(self, data: str) -> Erased | None:
        """The attributes of the entity without what is erased; None if they have nothing of it."""
        work = _Work(self)
        left = work.attributes(_members(data))
        return Erased(_encode(left).decode(), frozenset(work.values)) if work.is_changed else None


class _Work:
    """The erasure in one event: notes whether anything was erased, and the values."""

    def __init__(self, erasure: EntityErasure) -> None:
        self._erasure = erasure
        self.is_changed = False
        self.recodes = False
        """Whether all is encoded anew: a member whose name comes again hides its first value."""
        self.values: set[str] = set()

    def element(self, raw: msgspec.Raw, *, older: bool) -> msgspec.Raw:
        """One element of the event's entities, without what is to be erased."""
        members = _members(raw)
        header = members if older else _members(members["entityHeader"])
        key = _value(header["entityType"]), _value(header["entityId"])
        if key != self._erasure[:2]:
            return raw
        before, self.is_changed = self.is_changed, _has_doubles(_pairs(raw))
        self.recodes = self.is_changed
        if older:
            attributes = _members(members.pop("updatedAttributes", msgspec.Raw(b"{}")))
            left = self.own(members, _ENTITY_HEADER) or members
            self._rename(left, "entityId")
            left["updatedAttributes"] = _raw(self.attributes(attributes))
        else:
            del members["entityHeader"]
            header = self.own(header, _ENTITY_HEADER) or header
            self._rename(header, "entityId")
            left = {"entityHeader": _raw(header)} | self.attributes(members)
        found = _raw(left) if self.is_changed else raw
        self.is_changed = self.is_changed or before
        self.recodes = False
        return found

    def attributes(self, members: _Members) -> _Members:
        """The attributes; the id of the entity among them is none of its content."""
        fields = self._erasure.fields
        if fields is None:
            left = {name: raw for name, raw in members.items() if self._is_id(name, raw)}
            self._note(raw for name, raw in members.items() if name not in left)
        else:
            left = self._without(members, fields, ())
        self._rename(left, "id")
        return left

    def begin_own(self, has_doubles: bool) -> None:
        """Begin with what belongs to no entity."""
        self.recodes = has_doubles
        self.is_changed = self.is_changed or has_doubles

    def own(self, members: _Members, kept: Collection[str]) -> _Members | None:
        """Members beside the known ones, which are `kept`; None if nothing is erased."""
        fields = self._erasure.fields
        others = {name: raw for name, raw in members.items() if name not in kept}
        if fields is None:
            left: Mapping[str, msgspec.Raw] = {}
            self._note(others.values())
        else:
            left = self._without(others, fields, ("",))  # a path is one in the attributes
        if left == others:
            return None
        return {name: left.get(name, raw) for name, raw in members.items()
                if name in kept or name in left}  # fmt: skip

    def _is_id(self, name: str, raw: msgspec.Raw) -> bool:
        return name == "id" and _value(raw) in (self._erasure.entity_id, self._erasure.pseudonym)

    def _rename(self, members: _Members, name: str) -> None:
        pseudonym = self._erasure.pseudonym
        if pseudonym is None or name not in members:
            return
        if _value(members[name]) == self._erasure.entity_id:
            members[name] = _raw(pseudonym)
            self.is_changed = True

    def _without(self, members: _Members, fields: Fields, path: tuple[str, ...]) -> _Members:
        left: _Members = {}
        for name, raw in members.items():
            if fields.has((*path, name)):
                self._note([raw])
            else:
                left[name] = self._inside(raw, fields, (*path, name))
        return left

    def _inside(self, raw: msgspec.Raw, fields: Fields, path: tuple[str, ...]) -> msgspec.Raw:
        """A value without the fields in it; the same object if it has none of them."""
        start = bytes(raw)[:1]
        if start == b"{":
            members = _members(raw)
            left = self._without(members, fields, path)
            same = all(left.get(name) is each for name, each in members.items())
            return raw if same and not self.recodes else _raw(left)
        if start == b"[":
            elements = _elements(raw)
            found = [self._inside(each, fields, path) for each in elements]
            same = all(one is other for one, other in zip(found, elements, strict=True))
            return raw if same and not self.recodes else _raw(found)
        return raw

    def _note(self, erased: Iterable[msgspec.Raw]) -> None:
        for raw in erased:
            self.is_changed = True
            # Not msgspec, which reads no number beyond those of Python.
            self.values.update(_texts(json.loads(bytes(raw), parse_float=str, parse_int=str)))


class _Object(list[tuple[str, Any]]):
    """An object of JSON with all its members, also those with the same name."""


def _pairs(raw: str | msgspec.Raw) -> Any:
    return json.loads(
        raw if isinstance(raw, str) else bytes(raw),
        object_pairs_hook=_Object,
        parse_float=str,
        parse_int=str,
    )


def _has_doubles(value: Any, passed: Collection[str] = ()) -> bool:
    """Whether an object has two members with the same name. Members in `passed` are not read."""
    if isinstance(value, _Object):
        inner = [each for name, each in value if name not in passed]
        return len({name for name, _ in value}) < len(value) or any(map(_has_doubles, inner))
    return isinstance(value, list) and any(map(_has_doubles, value))  # pyright: ignore[reportUnknownArgumentType]


def _has_doubles_beside(data: str) -> bool:
    """Whether the event has such members beside its entities."""
    event = _pairs(data)
    body = dict(event).get("eventBody")
    return _has_doubles(event, ("entities", "eventBody")) or _has_doubles(body, ("entities",))


def _texts(value: Any) -> Iterable[str]:
    match value:
        case dict():
            for name, each in value.items():  # pyright: ignore[reportUnknownVariableType]
                yield str(name)  # pyright: ignore[reportUnknownArgumentType]
                yield from _texts(each)
        case list():
            for each in value:  # pyright: ignore[reportUnknownVariableType]
                yield from _texts(each)
        case bool() | None:
            return
        case _:
            yield str(value)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))
