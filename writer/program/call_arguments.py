"""Checks of the arguments of both writers, before anything is sent."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.event.event import Event
from dsql_outbox.outbox.event.event_parser import EventSource, require_event

_MAX_VERSION: Final = 2**63 - 1
"""The largest value of a bigint, the type of a version."""

_ON_DUPLICATE: Final = ("error", "return")


def require_on_duplicate(value: object) -> None:
    """Raise `TypeError` or `ValueError` unless `value` is ``error`` or ``return``."""
    if value in _ON_DUPLICATE:
        return
    if not isinstance(value, str):
        raise wrong_type("on_duplicate takes a str", value, 'on_duplicate="return"')
    raise ValueError(f'on_duplicate must be "error" or "return", got "{value}"')


def require_version(value: object, name: str = "expected_version") -> None:
    """Raise `TypeError` or `ValueError` unless `value` is None or a version, 0 included."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(f"{name} takes an int, or None for any version", value, f"{name}=0")
    if not 0 <= value <= _MAX_VERSION:
        raise ValueError(f"{name} must be from 0 (no such entity) to 2**63 - 1, got {value}")


def entity_key(entity_type: str, entity_id: str) -> dict[str, str]:
    """Return an entity's key as parameters. Raises `TypeError` unless both parts are texts."""
    key: dict[str, Any] = {"entity_type": entity_type, "entity_id": entity_id}
    for name, value in key.items():
        if not isinstance(value, str):
            raise wrong_type(f"{name} takes a str", value, f'{name}="..", as in the event')
    return key


def listed_entities(entities: Any) -> list[tuple[str, str]]:
    """Return the entities that a call names. Raises `TypeError` unless each is a type and an id."""
    name = "entities"
    if not _is_many(entities):
        raise wrong_type(
            f"{name} takes a list of types and ids", entities, f'{name}=[("Order", "ORDER-1")]'
        )
    found: list[tuple[str, str]] = list(entities)
    for n, entity in enumerate(found):
        given: Any = entity
        if not isinstance(given, tuple) or len(entity) != len(("type", "id")):
            raise wrong_type(
                f"{name}[{n}] takes a type and an id", entity, f'{name}=[("Order", "ORDER-1")]'
            )
        entity_key(*entity)
    return found


def require_function(call: str, function: object) -> None:
    """Raise `TypeError` unless `function` can be called."""
    if inspect.iscoroutine(function):
        function.close()  # else Python warns that it was never awaited
    if not callable(function):
        raise wrong_type(f"{call} takes a function of a transaction", function, f"{call}(function)")


def listed_events(events: Any) -> list[EventSource]:
    """Return the events of `write_many`. Raises `TypeError` for one event in place of many."""
    if not _is_many(events):
        raise wrong_type("write_many takes a list of events", events, "write_many([event, ..])")
    found: list[EventSource] = list(events)
    for n, event in enumerate(found):
        require_event(event, f"events[{n}]")
    return found


def listed_versions(versions: Any, events: int) -> list[int | None]:
    """Return one expected version per event, each None if `versions` is None.

    Raises `TypeError` or `ValueError`, also for another number of versions than of events.
    """
    if versions is None:
        return [None] * events
    name = "expected_versions"
    if not _is_many(versions):
        raise wrong_type(
            f"{name} takes a list with an entry per event", versions, f"{name}=[0, ..]"
        )
    found: list[int | None] = list(versions)
    for n, version in enumerate(found):
        require_version(version, f"{name}[{n}]")
    if len(found) != events:
        raise ValueError(f"{name} must have an entry per event: got {len(found)} for {events}")
    return found


def _is_many(given: object) -> bool:
    return hasattr(given, "__iter__") and not isinstance(given, (Event, Mapping, str, bytes))
