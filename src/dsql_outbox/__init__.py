"""The transactional outbox for PostgreSQL and Amazon Aurora DSQL.

The public API is `__all__`, `testing` and the port in `publisher.sinks`: the names of
other modules may change, except those that a page of the documentation imports. A name
is loaded on first use, so ``import dsql_outbox`` is cheap and a producer never loads the
relay.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .outbox import (
        Database,
        DuplicateEvent,
        Entity,
        Event,
        EventTooLarge,
        InvalidEvent,
        JobRefused,
        JsonEvent,
        Message,
        MessageGap,
        MessageSetAside,
        MissingExtra,
        MissingRight,
        OutboxError,
        OutcomeUnknown,
        Receipt,
        SchemaError,
        SettingsError,
        SinkUnavailable,
        StaleVersion,
        Touched,
        TransactionMisused,
        UnreadableMessage,
        WriterClosed,
        is_retryable,
    )
    from .publisher import (
        TOMBSTONE,
        MapFailed,
        Publisher,
        PublisherSettings,
        Refuse,
        TopicSettings,
        WireForm,
        open_sink,
    )
    from .writer import (
        AsyncTransaction,
        AsyncWriter,
        StoredEntity,
        StoredEvent,
        Transaction,
        Writer,
        WriterSettings,
        http_status,
        transact,
    )

    __version__: str

__all__ = [
    "TOMBSTONE",
    "AsyncTransaction",
    "AsyncWriter",
    "Database",
    "DuplicateEvent",
    "Entity",
    "Event",
    "EventTooLarge",
    "InvalidEvent",
    "JobRefused",
    "JsonEvent",
    "MapFailed",
    "Message",
    "MessageGap",
    "MessageSetAside",
    "MissingExtra",
    "MissingRight",
    "OutboxError",
    "OutcomeUnknown",
    "Publisher",
    "PublisherSettings",
    "Receipt",
    "Refuse",
    "SchemaError",
    "SettingsError",
    "SinkUnavailable",
    "StaleVersion",
    "StoredEntity",
    "StoredEvent",
    "TopicSettings",
    "Touched",
    "Transaction",
    "TransactionMisused",
    "UnreadableMessage",
    "WireForm",
    "Writer",
    "WriterClosed",
    "WriterSettings",
    "http_status",
    "is_retryable",
    "open_sink",
    "transact",
]

if not TYPE_CHECKING:  # with __getattr__ in view, a checker would accept any name
    _OF_PUBLISHER = {
        *("MapFailed", "Publisher", "PublisherSettings", "Refuse", "TopicSettings", "WireForm"),
        *("TOMBSTONE", "open_sink"),
    }

    def __getattr__(name: str) -> object:
        """Load a public name from its room on first use (PEP 562)."""
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely needed

            return version("dsql-outbox")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        room = import_module(".outbox", __name__)  # first: it reports a missing libpq
        if not hasattr(room, name):
            room = import_module(".publisher" if name in _OF_PUBLISHER else ".writer", __name__)
        globals()[name] = value = getattr(room, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
