"""The write side: one event, one transaction, retried on conflict.

`_steps` decides, `_writer` and `_async_writer` do. What a failure means is in
`_classify`, how long to wait in `_backoff`, how an event becomes parameters in
`_build`; all of these are pure.
"""

from ._async_writer import AsyncWriter
from ._http import HttpAnswer, http_status
from ._settings import WriterSettings
from ._writer import Writer

__all__ = ["AsyncWriter", "HttpAnswer", "Writer", "WriterSettings", "http_status"]
