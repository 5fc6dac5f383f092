"""Limits of the database and of names, and checks that the settings of all rooms share."""

import re
from collections.abc import Mapping
from typing import Final

from .arguments import is_finite, quoted
from .errors import SettingsError

MAX_EVENT_BYTES: Final = 1 << 20
"""1 MiB, the largest value of a DSQL column (AWS, Aurora DSQL quotas)."""

MAX_TRANSACTION_ROWS: Final = 3_000
"""The number of rows that one DSQL transaction may change (AWS, Aurora DSQL quotas)."""

MAX_TRANSACTION_BYTES: Final = 10 << 20
"""10 MiB, the largest amount that one DSQL transaction may write (AWS, Aurora DSQL quotas)."""

MAX_MESSAGE_BYTES: Final = 8 << 20
"""8 MiB. DSQL drops a connection, without an error, for a protocol message over 10 MiB."""

MAX_ENTITY_TYPE: Final = 64
MAX_ENTITY_ID: Final = 128
"""Characters. At 4 bytes each, (type, id, version) stays under DSQL's limit of 1 KiB per key."""

MAX_NAME: Final = 255
"""The limit in characters for an event's name, type and topic."""

DEFAULT_SHARDS: Final = 16

DEFAULT_TARGET: Final = "default"
"""The target of all that names no other; `schema apply` makes it."""

TARGET_SHARDS: Final = 1_024
"""The width of the range of shards that each target has."""

DOORBELL_CHANNEL: Final = "dsql_outbox"
"""The channel of PostgreSQL's notifications by which writers wake publishers."""

NO_DOORBELL: Final = (
    "{}.doorbell is not supported on Aurora DSQL, which has no NOTIFY: leave it out; publishers "
    "find events by polling, every idle_max seconds"
)
"""The error for a doorbell on Aurora DSQL."""

DEFAULT_SOURCE: Final = "/dsql-outbox"
"""The CloudEvents source of messages, unless the settings of the writer name another."""

MAX_SOURCE: Final = 128
"""Characters. An inbox has the source in its keys, which DSQL limits to 1 KiB."""

_SOURCE: Final = re.compile(rf"[!-~]{{1,{MAX_SOURCE}}}")


def require_positive(owner: str, values: Mapping[str, float]) -> None:
    """Raise `SettingsError`, which names the setting, for a value that is not above 0."""
    for name, value in values.items():
        _require_number(f"{owner}.{name}", value)
        if not value > 0:
            raise SettingsError(f"{owner}.{name} must be above 0, got {value}")


def require_not_negative(owner: str, values: Mapping[str, float]) -> None:
    """Raise `SettingsError`, which names the setting, for a value below 0."""
    for name, value in values.items():
        _require_number(f"{owner}.{name}", value)
        if not value >= 0:
            raise SettingsError(f"{owner}.{name} must be 0 or more, got {value}")


def require_whole(owner: str, values: Mapping[str, object]) -> None:
    """Raise `SettingsError`, which names the setting, for a value that is not an int."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise SettingsError(f"{owner}.{name} must be a whole number, got {value!r}")


def require_text(owner: str, values: Mapping[str, object]) -> None:
    """Raise `SettingsError`, which names the setting, for a value that cannot be stored as text."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise SettingsError(f"{owner}.{name} must be a str, got {type(value).__name__}")
        if not value:
            raise SettingsError(f"{owner}.{name} must not be empty")
        if "\0" in value or not is_unicode(value):
            raise SettingsError(f"{owner}.{name} must not hold a NUL or half a surrogate pair")


def is_source(text: str) -> bool:
    """Return whether a text can be the CloudEvents source: visible ASCII, as a URI has."""
    return _SOURCE.fullmatch(text) is not None


def require_source(owner: str, source: str) -> None:
    """Raise `SettingsError` unless the text can be the CloudEvents source of messages."""
    require_text(owner, {"source": source})
    if not is_source(source):
        raise SettingsError(
            f"{owner}.source must be 1 to {MAX_SOURCE} visible characters of ASCII, as a URI "
            f"has, got {len(source)} characters"
        )


def is_unicode(text: str) -> bool:
    """Return whether a text has a UTF-8 form, so contains no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingsError(f"{name} must be a number, got {value!r}")
    if not is_finite(value):
        raise SettingsError(f"{name} must be a finite number, got {quoted(value)}")
