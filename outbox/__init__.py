"""The vocabulary that writer and publisher share, and the way to the database.

The chapter `event` is the event as a producer makes it, and its check. `message` is for a broker,
`receipt` for a caller, `pydantic_schema` describes it for OpenAPI. `errors` defines the exceptions
for users, but for `MapFailed` and `WrongAnswer`, which stand beside the map and the sink. `failure`
decides what an error of the database means, and `interrupt` whether an error came from outside of
the call. The chapter `database` is the way to the database. `settings` holds its limits.
`unit_of_work` is a transaction from its connection to the answer to COMMIT. `sessions` has the
sessions of callers. `arguments` checks what users give, `content_type` what they say of a payload,
and `redaction` keeps secrets out of texts.

The names below are for users. Other code imports a name from the module that defines it.
"""

from .database import (
    libpq as libpq,  # first: it reports a missing libpq before others import the driver
)

# isort: split
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.event.event import Entity, Event, JsonEvent

from .errors import (
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    JobRefused,
    MessageGap,
    MessageSetAside,
    MissingExtra,
    MissingRight,
    OutboxError,
    OutcomeUnknown,
    SchemaError,
    SettingsError,
    SinkUnavailable,
    StaleVersion,
    TransactionMisused,
    UnreadableMessage,
    WriterClosed,
)
from .failure import is_retryable
from .message import Message
from .receipt import Receipt, Touched

__all__ = [
    "Database",
    "DuplicateEvent",
    "Entity",
    "Event",
    "EventTooLarge",
    "InvalidEvent",
    "JobRefused",
    "JsonEvent",
    "Message",
    "MessageGap",
    "MessageSetAside",
    "MissingExtra",
    "MissingRight",
    "OutboxError",
    "OutcomeUnknown",
    "Receipt",
    "SchemaError",
    "SettingsError",
    "SinkUnavailable",
    "StaleVersion",
    "Touched",
    "TransactionMisused",
    "UnreadableMessage",
    "WriterClosed",
    "is_retryable",
]
