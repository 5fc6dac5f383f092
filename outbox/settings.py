"""Checks that every room's settings share, and the limits that the database sets."""

from collections.abc import Mapping
from typing import Final

from .errors import SettingsError

MAX_EVENT_BYTES: Final = 1 << 20
"""1 MiB: the value limit of a DSQL column (AWS, Aurora DSQL quotas)."""

MAX_TRANSACTION_ROWS: Final = 3_000
"""Rows that one DSQL transaction may change (AWS, Aurora DSQL quotas)."""

MAX_TRANSACTION_BYTES: Final = 10 << 20
"""10 MiB that one DSQL transaction may write, over all copies (AWS, Aurora DSQL quotas)."""

MAX_ENTITY_TYPE: Final = 64
MAX_ENTITY_ID: Final = 128
"""Characters. 4 bytes each, so that (type, id, version) stays under DSQL's 1 KiB of key."""

MAX_NAME: Final = 255
"""Characters of an event's name, type and topic."""

DEFAULT_SHARDS: Final = 16

DEFAULT_SOURCE: Final = "/dsql-outbox"
"""The CloudEvents source of messages, unless a writer is told another."""


def require_positive(owner: str, values: Mapping[str, float]) -> None:
    """Refuse a setting that is not above 0; raises `SettingsError` that names it."""
    for name, value in values.items():
        if value <= 0:
            raise SettingsError(f"{owner}.{name} must be above 0, got {value}")


def require_not_negative(owner: str, values: Mapping[str, float]) -> None:
    """Refuse a setting below 0; raises `SettingsError` that names it."""
    for name, value in values.items():
        if value < 0:
            raise SettingsError(f"{owner}.{name} must be 0 or more, got {value}")
