"""A row that is wrong, and why. No I/O."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import msgspec

from dsql_outbox.outbox.message import subject_key
from dsql_outbox.outbox.receipt import Touched

Fault = Literal[
    "changed-bytes",
    "doubled-version",
    "entity-ahead",
    "entity-behind",
    "gap",
    "missing-entity",
    "missing-event",
    "missing-header",
    "other-content",
    "other-entity",
    "other-event",
    "other-payload",
    "other-position",
    "other-state",
    "unfinished-erasure",
    "unlisted-erasure",
    "unreadable",
]
"""The kinds of findings."""


class Finding(msgspec.Struct, frozen=True, rename="camel"):
    """A row that is wrong. `text` says why; no content of an event is in it.

    `key` is the id of an event, ``TYPE/ID`` of an entity, ``TYPE/ID@VERSION`` of a header,
    ``SHARD/POSITION/EVENT_ID`` of a message, ``EVENT_ID/DIED_AT`` of a dead letter, or
    ``EVENT_ID/NUMBER`` of a replay.
    """

    fault: Fault
    table: str
    key: str
    text: str


def event_finding(fault: Fault, event_id: UUID, text: str) -> Finding:
    """A finding about a row of ``business_events``."""
    return Finding(fault, "business_events", str(event_id), text)


def header_finding(fault: Fault, touch: Touched, text: str) -> Finding:
    """A finding about a row of ``event_headers``."""
    return Finding(fault, "event_headers", touch_key(touch), text)


def entity_finding(fault: Fault, key: Sequence[str], text: str) -> Finding:
    """A finding about a row of ``entities``; `key` is its type and its id."""
    return Finding(fault, "entities", subject_key(*key), text)


def touch_key(touch: Touched) -> str:
    """``TYPE/ID@VERSION``."""
    return f"{subject_key(touch.entity_type, touch.entity_id)}@{touch.version}"
