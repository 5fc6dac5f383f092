"""The write side: store an event in one transaction, and retry after a conflict.

`writer_base` says what both writers promise. `writer` and `async_writer` have each `program`
performed, in a thread and on an event loop: all decisions are in the programs. `core` turns
events into calls and statements. `attempt` decides about retries, `statement` turns events into
SQL, `transact` runs the caller's SQL and events in one transaction, and `coalesce` is group
commit. `conflicts` counts which entities conflict, and `backlog_alarm` reports old messages. The
room `outbox` decides the meaning of a database error (`failure`), and what may be sent now
(`unit_of_work.gate`).
"""

from dsql_outbox.writer.program.stream import StoredEvent
from dsql_outbox.writer.statement.answers import StoredEntity
from dsql_outbox.writer.transact.transaction import AsyncTransaction, Transaction

from .async_writer import AsyncWriter
from .http_status import http_status
from .settings import WriterSettings
from .writer import Writer

__all__ = [
    "AsyncTransaction",
    "AsyncWriter",
    "StoredEntity",
    "StoredEvent",
    "Transaction",
    "Writer",
    "WriterSettings",
    "http_status",
]
