"""The zstd of the standard library, which Python has since 3.14, or its backport."""

import sys
from typing import Any

from dsql_outbox.outbox.errors import MissingExtra


def zstd() -> Any:
    """The module ``compression.zstd``. Raises `MissingExtra` if the backport is not installed."""
    if sys.version_info >= (3, 14):
        from compression import zstd as library  # noqa: PLC0415 - not on older versions
    else:
        try:
            from backports import zstd as library  # pyright: ignore[reportMissingTypeStubs] # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtra("archive", "an archive of events") from None
    return library
