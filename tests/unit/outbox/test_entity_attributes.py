"""Attributes that are no mapping: pydantic models, dataclasses and msgspec Structs."""

import json
import subprocess
import sys
from collections import UserDict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_serializer

from dsql_outbox.outbox import Entity, Event, InvalidEvent
from dsql_outbox.outbox.event.event_parser import parse_event

ID = UUID("0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101")
MARKER = "5ecret-paylo4d"


class Colour(Enum):
    RED = "red"


VALUES: dict[str, Any] = {
    "bought": date(2026, 11, 25),
    "seen": datetime(2026, 11, 25, 8, tzinfo=UTC),
    "owner": ID,
    "price": Decimal("9000.10"),
    "colour": Colour.RED,
    "tags": ("a", "b"),
}
AS_JSON = {
    "bought": "2026-11-25",
    "seen": "2026-11-25T08:00:00Z",
    "owner": str(ID),
    "price": "9000.10",
    "colour": "red",
    "tags": ["a", "b"],
}


class Model(BaseModel):
    bought: date
    seen: datetime
    owner: UUID
    price: Decimal
    colour: Colour
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    bought: date
    seen: datetime
    owner: UUID
    price: Decimal
    colour: Colour
    tags: tuple[str, ...]


class Struct(msgspec.Struct):
    bought: date
    seen: datetime
    owner: UUID
    price: Decimal
    colour: Colour
    tags: tuple[str, ...]


def made(attributes: Any) -> Event:
    return Event.new("CarBought", [Entity("Car", "C-1", attributes)], id=ID)


def stored(attributes: Any) -> Any:
    """The attributes as they are stored, without the id that every entity has."""
    (touch,) = parse_event(made(attributes)).touches
    found = json.loads(touch.attributes)
    assert found.pop("id") == "C-1"
    return found


@pytest.mark.parametrize("kind", [dict, UserDict, Model, Data, Struct])
def test_attributes_of_each_kind_are_stored_alike(kind: Any) -> None:
    assert stored(kind(**VALUES)) == AS_JSON


@pytest.mark.parametrize("kind", [Model, Data, Struct])
def test_a_model_may_be_a_part_of_the_attributes(kind: Any) -> None:
    assert stored({"parts": [kind(**VALUES)]}) == {"parts": [AS_JSON]}


@pytest.mark.parametrize("kind", [dict, Model, Data, Struct])
def test_equal_attributes_make_equal_content(kind: Any) -> None:
    first, again = (parse_event(made(kind(**VALUES))) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert (
        parse_event(made(kind(**VALUES | {"price": Decimal(1)}))).fingerprint != first.fingerprint
    )


SET_IN_A_DATACLASS = """
from dataclasses import dataclass
from dsql_outbox import Entity
@dataclass
class Tagged:
    tags: set[str]
print(Entity("Car", "1", Tagged(set("abcdefgh"))).to_wire(None, ""))
"""


def test_a_set_in_a_dataclass_is_the_same_text_in_every_process() -> None:
    def run(seed: str) -> bytes:
        command = [sys.executable, "-c", SET_IN_A_DATACLASS]
        return subprocess.check_output(command, env={"PYTHONHASHSEED": seed})

    assert run("1") == run("2")


def test_a_model_has_the_names_that_its_own_settings_give() -> None:
    class Aliased(BaseModel):
        model_config = ConfigDict(serialize_by_alias=True)
        make: str = Field("VW", serialization_alias="carMake")

    class Renamed(msgspec.Struct, rename="camel"):
        car_make: str = "VW"

    assert stored(Aliased()) == stored(Renamed()) == {"carMake": "VW"}


@dataclass
class Holder:
    parts: list[Any] = field(default_factory=lambda: [1, object()])


class Odd(BaseModel):
    make: str = MARKER

    @field_serializer("make")
    def refuse(self, value: str) -> str:
        raise ValueError(value)


class Numbers(RootModel[list[int]]):
    pass


class Pair(msgspec.Struct, array_like=True):
    a: int = 1


NO_FORM = "object has no form in JSON, give a text, a number, a list, a mapping"
KINDS = "must be a mapping, a pydantic model, a dataclass or a msgspec Struct, not "

REFUSED: dict[str, tuple[Any, str, str]] = {
    "an object": ({"a": {"b": [object()]}}, "entities[0]", NO_FORM),
    "under a name that may be data": ({"a": {MARKER: object()}}, "entities[0]", NO_FORM),
    "deep inside": ({"a": {"b": {"c": {"d": {"e": object()}}}}}, "entities[0]", NO_FORM),
    "in a dataclass": (Holder(), "entities[0]", NO_FORM),
    "in a dataclass in a mapping": ({"a": Holder()}, "entities[0]", NO_FORM),
    "a key": ({"a": {(1, 2): 3}}, "entities[0]", "tuple has no form in JSON"),
    "a class": ({"a": Model}, "entities[0]", "class Model has no form"),
    "a serializer": (Odd(), "entities[0]", "model_dump of Odd raised PydanticSerializationError"),
    "a serializer inside": ({"a": Odd()}, "entities[0]", "model_dump of Odd raised Pyd"),
    "a list": ([1], "entities[0].attributes", f"{KINDS}list"),
    "a text": (MARKER, "entities[0].attributes", f"{KINDS}str"),
    "None": (None, "entities[0].attributes", f"{KINDS}NoneType"),
    "a class as attributes": (Model, "entities[0].attributes", f"{KINDS}class Model"),
    "a model of a list": (Numbers([1]), "entities[0].attributes", f"{KINDS}Numbers"),
    "a struct as a list": (Pair(), "entities[0].attributes", f"{KINDS}Pair"),
    "a reserved name": (
        UserDict(entityHeader=1),
        "entities[0].attributes.entityHeader",
        "is no name for an attribute",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_form_in_json_is_refused_at_its_path(name: str) -> None:
    attributes, path, rule = REFUSED[name]
    with pytest.raises(InvalidEvent) as caught:
        parse_event(made(attributes))
    assert caught.value.path == path
    assert rule in caught.value.rule
    assert MARKER not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_circle_with_a_fault_in_it_has_a_path_that_ends() -> None:
    circle: dict[str, Any] = {"fault": object()}
    circle = {"again": circle, "fault": object()}
    circle["again"]["again"] = circle
    with pytest.raises(InvalidEvent):
        parse_event(made(circle))
