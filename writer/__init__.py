"""The write side: one event, one transaction, retried on conflict.

`attempt.steps` decides, `writer` and `async_writer` do. What a failure means is in
`outbox.failure`, how long to wait in `attempt.backoff`, how an event becomes parameters
in `statement.parameters`; all of these are pure.
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
