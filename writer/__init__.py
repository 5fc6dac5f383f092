"""The write side: store an event in one transaction, and retry after a conflict.

`writer` and `async_writer` are the public classes. They do the I/O, on `connections`.
`core` holds what both share. `attempt` decides about retries, `statement` turns events
into SQL, `transact` runs the caller's SQL and events in one transaction, and `coalesce`
is group commit. `write_many` and `stream` are the calls of that name. `backlog_alarm`
reports old messages. The meaning of a database error is decided in `outbox.failure`.
"""

from dsql_outbox.writer.statement.form_probe import write_probe
from dsql_outbox.writer.transact.transaction import AsyncTransaction, Transaction

from .async_writer import AsyncWriter
from .http_status import HttpAnswer, http_status
from .settings import WriterSettings
from .stream import StoredEvent
from .writer import Writer

__all__ = [
    "AsyncTransaction",
    "AsyncWriter",
    "HttpAnswer",
    "StoredEvent",
    "Transaction",
    "Writer",
    "WriterSettings",
    "http_status",
    "write_probe",
]
