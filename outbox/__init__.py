"""The vocabulary that writer and publisher share, and the way to the database.

The chapter `event` is the event as a producer makes it, and its check.
`message` is for a broker, `receipt` for a caller.
`errors` defines every exception of the library. `failure` decides what an error of
the database means.
The chapter `database` is the way to the database. `settings` holds its limits.
`unit_of_work` is a transaction from its connection to the answer to COMMIT.
"""

from .database import (
    libpq as libpq,  # first: it reports a missing libpq before others import the driver
)

# isort: split
from dsql_outbox.outbox.database.array_literals import (
    array_literal,
    json_array,
    plain_array,
    text_array,
)
from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA, Database, require_database
from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    Rows,
    Values,
    command,
    encoding_of,
    exchange,
    numbered,
    pipeline,
    pipeline_inside,
    rows_of,
    tag_of,
    unprepared,
)
from dsql_outbox.outbox.database.fork import OneProcess, call_in_children
from dsql_outbox.outbox.database.target import Isolation
from dsql_outbox.outbox.event.event import Entity, EntityHeader, Event, EventHeader, JsonEvent
from dsql_outbox.outbox.event.event_parser import (
    EventSource,
    ParsedEvent,
    ParsedTouch,
    parse_event,
    require_event,
)
from dsql_outbox.outbox.event.own_headers import parse_headers
from dsql_outbox.outbox.unit_of_work.budget import (
    AT_ONCE,
    DOCTOR,
    INBOX,
    MIGRATION,
    OPERATOR,
    Budget,
    BudgetedWork,
    Spending,
    retried,
)
from dsql_outbox.outbox.unit_of_work.commit import (
    commit,
    require_committed,
    require_transaction,
    roll_back,
)
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.connections.task_connections import AsyncConnections
from dsql_outbox.outbox.unit_of_work.connections.thread_connections import Connections
from dsql_outbox.outbox.unit_of_work.function_run import FunctionRun, Verdict
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.lasting import LastingConnection
from dsql_outbox.outbox.unit_of_work.loops import act_async, perform_async
from dsql_outbox.outbox.unit_of_work.primitives import (
    Exchange,
    Open,
    Program,
    Query,
    Sleep,
)
from dsql_outbox.outbox.unit_of_work.work import Again, Work, attempted, on_connection, settle

from .arguments import given_hooks, given_settings, require_seconds, wrong_type
from .contention import (
    EntityConflicts,
    WriterConflicts,
    decode_conflicts,
    encode_conflicts,
)
from .errors import (
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    MessageGap,
    MissingExtra,
    OutboxError,
    OutcomeUnknown,
    PublisherRuns,
    SchemaError,
    SettingsError,
    SinkUnavailable,
    StaleVersion,
    TransactionMisused,
    UnreadableMessage,
    WriterClosed,
)
from .failure import (
    CONFLICTS,
    LASTING,
    NO_SUCH_FORM,
    OUTAGES,
    PASSING,
    RACES,
    RETRIED,
    SERVER_TROUBLE,
    DatabaseFailure,
    FailureKind,
    Moved,
    classify,
    is_retryable,
    is_unreachable,
    kind_of,
    schema_defect,
    schema_error,
    tables_expected,
    text_of,
    unwrap,
)
from .interrupt import is_being_cancelled, is_interrupt
from .json_struct import JsonStruct
from .message import (
    RESERVED_HEADERS,
    TRACE_HEADERS,
    Message,
    broken_header,
    message_headers,
    parse_subject_key,
    subject_key,
    topic_fault,
)
from .receipt import Receipt, Touched
from .redaction import has_unclear_login, redacted, told
from .settings import (
    DEFAULT_SHARDS,
    DEFAULT_SOURCE,
    MAX_ENTITY_ID,
    MAX_ENTITY_TYPE,
    MAX_EVENT_BYTES,
    MAX_NAME,
    MAX_SOURCE,
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_ROWS,
    is_source,
    is_unicode,
    require_not_negative,
    require_positive,
    require_source,
    require_text,
    require_whole,
)

__all__ = [
    "AT_ONCE",
    "CONFLICTS",
    "DEFAULT_SCHEMA",
    "DEFAULT_SHARDS",
    "DEFAULT_SOURCE",
    "DOCTOR",
    "INBOX",
    "LASTING",
    "MAX_ENTITY_ID",
    "MAX_ENTITY_TYPE",
    "MAX_EVENT_BYTES",
    "MAX_NAME",
    "MAX_SOURCE",
    "MAX_TRANSACTION_BYTES",
    "MAX_TRANSACTION_ROWS",
    "MIGRATION",
    "NO_SUCH_FORM",
    "OPERATOR",
    "OUTAGES",
    "PASSING",
    "RACES",
    "RESERVED_HEADERS",
    "RETRIED",
    "SERVER_TROUBLE",
    "TRACE_HEADERS",
    "Again",
    "AsyncConnection",
    "AsyncConnections",
    "Budget",
    "BudgetedWork",
    "Connection",
    "Connections",
    "Database",
    "DatabaseFailure",
    "DuplicateEvent",
    "Entity",
    "EntityConflicts",
    "EntityHeader",
    "Event",
    "EventHeader",
    "EventSource",
    "EventTooLarge",
    "Exchange",
    "FailureKind",
    "FunctionRun",
    "Gate",
    "InvalidEvent",
    "Isolation",
    "JsonEvent",
    "JsonStruct",
    "LastingConnection",
    "Lender",
    "Message",
    "MessageGap",
    "MissingExtra",
    "Moved",
    "NumberedQuery",
    "OneProcess",
    "Open",
    "OutboxError",
    "OutcomeUnknown",
    "ParsedEvent",
    "ParsedTouch",
    "Program",
    "PublisherRuns",
    "Query",
    "Receipt",
    "Rows",
    "SchemaError",
    "SettingsError",
    "SinkUnavailable",
    "Sleep",
    "Spending",
    "StaleVersion",
    "Touched",
    "TransactionMisused",
    "UnreadableMessage",
    "Values",
    "Verdict",
    "Work",
    "WriterClosed",
    "WriterConflicts",
    "act_async",
    "array_literal",
    "attempted",
    "broken_header",
    "call_in_children",
    "classify",
    "command",
    "commit",
    "decode_conflicts",
    "encode_conflicts",
    "encoding_of",
    "exchange",
    "given_hooks",
    "given_settings",
    "has_unclear_login",
    "is_being_cancelled",
    "is_interrupt",
    "is_retryable",
    "is_source",
    "is_unicode",
    "is_unreachable",
    "json_array",
    "kind_of",
    "message_headers",
    "numbered",
    "on_connection",
    "parse_event",
    "parse_headers",
    "parse_subject_key",
    "perform_async",
    "pipeline",
    "pipeline_inside",
    "plain_array",
    "redacted",
    "require_committed",
    "require_database",
    "require_event",
    "require_not_negative",
    "require_positive",
    "require_seconds",
    "require_source",
    "require_text",
    "require_transaction",
    "require_whole",
    "retried",
    "roll_back",
    "rows_of",
    "schema_defect",
    "schema_error",
    "settle",
    "subject_key",
    "tables_expected",
    "tag_of",
    "text_array",
    "text_of",
    "told",
    "topic_fault",
    "unprepared",
    "unwrap",
    "wrong_type",
]
