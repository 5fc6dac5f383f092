"""Encode the values of an event as JSON, and name the fault of a value that has no JSON form.

Attributes are a mapping, a pydantic model, a dataclass or a msgspec Struct. pydantic is not
imported: a model is recognised by its method ``model_dump``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, ClassVar, Final, Protocol, cast

import msgspec

from dsql_outbox.outbox.errors import InvalidEvent

from .json_faults import SURROGATE, Fault, find_fault

_SHOWN: Final = 6
"""The number of steps of a path that are shown."""

_NAME_LENGTH: Final = 64
"""The most characters of a name that is shown."""


class PydanticModel(Protocol):
    """The method of pydantic's models that is used."""

    def model_dump(self, *, mode: str) -> Any:
        """Return the model as values of JSON, if `mode` is ``json``."""


class Dataclass(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Attributes = Mapping[str, Any] | PydanticModel | Dataclass | msgspec.Struct
"""The types of an entity's attributes."""


def encode_json(value: Any) -> bytes:
    """Return `value` as JSON. NaN and the infinities become null.

    Dates, UUIDs, decimals, enums, dataclasses, Structs and pydantic models have a form in
    JSON. Raises `InvalidEvent` with a path if a part of the value has none.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:  # no cause, since its text quotes the value
        raise InvalidEvent(*_fault_of(value)) from None
    except RecursionError:
        rule = "cannot be encoded as JSON: it is nested too deeply, or contains itself"
        raise InvalidEvent("", rule) from None
    except (TypeError, ValueError) as error:
        raise _invalid(value, "", error) from None


def attributes_of(source: object, path: str) -> Mapping[str, Any]:
    """Return the attributes of the entity at `path` as a mapping. Equal ones are equal.

    Raises `InvalidEvent` if they are no object of JSON.
    """
    if isinstance(source, Mapping):
        return source  # pyright: ignore[reportUnknownVariableType]
    try:
        found = _values_of(source)
    except (TypeError, ValueError) as error:
        raise _invalid(source, path, error) from None
    if not isinstance(found, dict):
        rule = "must be a mapping, a pydantic model, a dataclass or a msgspec Struct"
        raise InvalidEvent(f"{path}.attributes", f"{rule}, not {_named(source)}")
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
        f"{_named(value)} has no form in JSON, give a text, a number, a list, a mapping, "
        "a dataclass or a pydantic model"
    )


def _dump(model: Any) -> Any:
    try:
        return model.model_dump(mode="json")
    except Exception as error:  # noqa: BLE001 - a serializer of the user; its text may quote values
        rule = f"model_dump of {_named(model)} raised {type(error).__name__}"
        raise ValueError(rule) from None


_encode: Final = msgspec.json.Encoder(enc_hook=_encode_unknown).encode


def _is_model(value: object) -> bool:
    return hasattr(value, "model_dump") and not isinstance(value, type)


def _is_dataclass(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _named(value: object) -> str:
    return f"class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _invalid(value: object, path: str, error: Exception) -> InvalidEvent:
    return InvalidEvent(_path_to_fault(value, path), f"cannot be encoded as JSON: {error}")


def _path_to_fault(value: object, path: str) -> str:
    """Follow the parts that cannot be encoded, as far as a path is shown."""
    for _ in range(_SHOWN):
        faults = ((step, part) for step, part in _parts(value) if not _is_encodable(part))
        step, value = next(faults, ("", None))
        if not step:
            return path.removeprefix(".")
        path += step
    return f"{path}..".removeprefix(".")


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    """Yield the parts of a value, each with the step of the path to it."""
    if isinstance(value, Mapping):
        named = cast("Mapping[object, object]", value)
        yield from ((_step(name), part) for name, part in named.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        listed = cast("Iterable[object]", value)
        yield from ((f"[{n}]", part) for n, part in enumerate(listed))
    elif _is_dataclass(value) or isinstance(value, msgspec.Struct):
        yield from ((f".{name}", getattr(value, name)) for name in _fields(value))


def _fields(value: object) -> tuple[str, ...]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    return tuple(vars(type(value))["__dataclass_fields__"])


def _step(name: object) -> str:
    """Show names that look like identifiers, and hide others, since a key may be data."""
    is_shown = isinstance(name, str) and name.isidentifier() and len(name) <= _NAME_LENGTH
    return f".{name}" if is_shown else ".*"


def _is_encodable(value: object) -> bool:
    try:
        _encode(value)
    except (TypeError, ValueError):
        return False
    return True


def _fault_of(value: Any) -> Fault:
    """Return the path of a text that is not Unicode."""
    text = json.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_unknown))
    return find_fault(text) or Fault("", SURROGATE)
