"""Remove what an event says of one entity. No I/O.

The part of an entity is its element of the event's entities: its attributes, and the members of
its header but its type, its id and its dates. The subject of an event owns also what belongs to
no entity: other members of the event and of its header. All else keeps its bytes.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

import msgspec

_Members = dict[str, msgspec.Raw]

_members: Final = msgspec.json.Decoder(_Members).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_value: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

_EVENT_HEADER: Final = ("uuid", "eventName", "eventType", "createdDate", "savedDate")
_ENTITY_HEADER: Final = ("entityId", "entityType", "createdAt", "updatedAt")
_SHORTEST: Final = 3
"""Characters of the shortest value that is searched in headers: a shorter one is in too many."""


class Erased(NamedTuple):
    """An event without what was erased; `values` are the erased texts and numbers, as text."""

    data: str
    values: frozenset[str]

    def is_named_in(self, text: str) -> bool:
        """Whether a text holds an erased value."""
        return any(len(value) >= _SHORTEST and value in text for value in self.values)


class EntityErasure(NamedTuple):
    """The entity that is erased."""

    entity_type: str
    entity_id: str

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
        if key != self._erasure:
            return raw
        before, self.is_changed = self.is_changed, _has_doubles(_pairs(raw))
        if older:
            attributes = _members(members.pop("updatedAttributes", msgspec.Raw(b"{}")))
            left = self.own(members, _ENTITY_HEADER) or members
            left["updatedAttributes"] = _raw(self.attributes(attributes))
        else:
            del members["entityHeader"]
            header = self.own(header, _ENTITY_HEADER) or header
            left = {"entityHeader": _raw(header)} | self.attributes(members)
        found = _raw(left) if self.is_changed else raw
        self.is_changed = self.is_changed or before
        return found

    def attributes(self, members: _Members) -> _Members:
        """The attributes; the id of the entity among them is none of its content."""
        left = {name: raw for name, raw in members.items() if self._is_id(name, raw)}
        self._note(raw for name, raw in members.items() if name not in left)
        return left

    def begin_own(self, has_doubles: bool) -> None:
        """Begin with what belongs to no entity."""
        self.recodes = has_doubles
        self.is_changed = self.is_changed or has_doubles

    def own(self, members: _Members, kept: Collection[str]) -> _Members | None:
        """Members beside the known ones, which are `kept`; None if nothing is erased."""
        others = [raw for name, raw in members.items() if name not in kept]
        if not others:
            return None
        self._note(others)
        return {name: raw for name, raw in members.items() if name in kept}

    def _is_id(self, name: str, raw: msgspec.Raw) -> bool:
        return name == "id" and _value(raw) == self._erasure.entity_id

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
