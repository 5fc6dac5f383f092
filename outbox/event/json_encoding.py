"""Encode the values of an event as JSON, and name the fault of a value that has no JSON form.

Attributes are a mapping, a pydantic model, a dataclass or a msgspec Struct. pydantic is not
imported: a model is recognised by its method ``model_dump``.
"""

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, ClassVar, Final, Protocol, cast

import msgspec

from dsql_outbox.outbox.errors import InvalidEvent

from .json_faults import SURROGATE, JsonFault, find_fault

_NO_JSON: Final = "cannot be encoded as JSON"


class PydanticModel(Protocol):
    """The method of pydantic's models that is used."""

    def model_dump(self, *, mode: str) -> Any:
        """Return the model as values of JSON, if `mode` is ``json``."""


class Dataclass(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Attributes = Mapping[str, Any] | PydanticModel | Dataclass | msgspec.Struct
"""The types of an entity's attributes."""


def encode_json(value: object) -> bytes:
    """Return `value` as JSON. NaN and the infinities become null.

    Dates, UUIDs, decimals, enums, dataclasses, Structs and pydantic models have a form in
    JSON. Raises `InvalidEvent` with the path of the entity if a part of it has none.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:  # no cause, since its text quotes the value
        raise InvalidEvent(*_fault_of(value)) from None
    except RecursionError:
        rule = f"{_NO_JSON}: it is nested too deeply, or contains itself"
        raise InvalidEvent("", rule) from None
    except (TypeError, ValueError) as error:
        raise InvalidEvent(_entity_at_fault(value), f"{_NO_JSON}: {error}") from None


def attributes_of(source: object, path: str) -> Mapping[str, Any]:
    """Return the attributes of the entity at `path` as a mapping. Equal ones are equal.

    Raises `InvalidEvent` if they are no object of JSON.
    """
    if isinstance(source, Mapping):
        return source  # pyright: ignore[reportUnknownVariableType]
    try:
        found = _values_of(source)
    except (TypeError, ValueError) as error:
        raise InvalidEvent(path, f"{_NO_JSON}: {error}") from None
    if not isinstance(found, dict):
        rule = "must be a mapping, a pydantic model, a dataclass or a msgspec Struct"
        raise InvalidEvent(f"{path}.attributes", f"{rule}, not {_type_name(source)}")
    return found  # pyright: ignore[reportUnknownVariableType]


def _values_of(source: object) -> object:
    """Return a model as values of JSON, or None for an object of another kind."""
    if _is_model(source):
        return _dump(source)
    if _is_dataclass(source) or isinstance(source, msgspec.Struct):
        return msgspec.to_builtins(
            source, str_keys=True, order="deterministic", enc_hook=_encode_unknown
        )
    return None


def _encode_unknown(value: Any) -> Any:
    """Return a value of a type that msgspec does not know as values of JSON."""
    if _is_model(value):
        return _dump(value)
    raise TypeError(
        f"{_type_name(value)} has no form in JSON, give a text, a number, a list, a mapping, "
        "a dataclass or a pydantic model"
    )


def _dump(model: Any) -> Any:
    try:
        return model.model_dump(mode="json")
    except Exception as error:  # noqa: BLE001 - a serializer of the user; its text may quote values
        rule = f"model_dump of {_type_name(model)} raised {type(error).__name__}"
        raise ValueError(rule) from None


_encode: Final = msgspec.json.Encoder(enc_hook=_encode_unknown).encode


def _is_model(value: object) -> bool:
    return hasattr(value, "model_dump") and not isinstance(value, type)


def _is_dataclass(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _type_name(value: object) -> str:
    return f"class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _entity_at_fault(event: object) -> str:
    """Return the path of the first entity that cannot be encoded, or an empty one."""
    if not isinstance(event, Mapping):
        return ""
    entities = cast("Mapping[str, object]", event).get("entities")
    listed = cast("list[object]", entities) if isinstance(entities, list) else ()
    for n, entity in enumerate(listed):
        try:
            _encode(entity)
        except (TypeError, ValueError, RecursionError):
            return f"entities[{n}]"
    return ""


def _fault_of(value: Any) -> JsonFault:
    """Return the path of a text that is not Unicode."""
    text = json.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_unknown))
    return find_fault(text) or JsonFault("", SURROGATE)
