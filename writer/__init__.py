"""The write side: one event, one transaction, retried on conflict.

`_steps` decides, `_writer` and `_async_writer` do. What a failure means is in
`_classify`, how long to wait in `_backoff`, how an event becomes parameters in
`_build`; all of these are pure.
"""

from dsql_outbox.writer.statement.form_probe import write_probe
from dsql_outbox.writer.transact.retryable import is_retryable
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
    "is_retryable",
    "write_probe",
]
