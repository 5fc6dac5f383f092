"""The write side: one event, one transaction, retried on conflict.

`_steps` decides, `_writer` and `_async_writer` do. What a failure means is in
`_classify`, how long to wait in `_backoff`, how an event becomes parameters in
`_build`; all of these are pure.
"""

from ._async_writer import AsyncWriter
from ._http import HttpAnswer, http_status
from ._probe import write_probe
from ._settings import WriterSettings
from ._stream import StoredEvent
from ._transact_retryable import is_retryable
from ._transaction import AsyncTransaction, Transaction
from ._writer import Writer

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
