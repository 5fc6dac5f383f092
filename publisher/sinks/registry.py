"""From a URL to a sink."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from typing import Final, cast

from dsql_outbox.outbox import SettingsError

from .port import Sink

SINK_GROUP: Final = "dsql_outbox.sinks"
"""The group of entry points; an entry's name is the URL's scheme."""

SinkOpener = Callable[[str], AbstractAsyncContextManager[Sink]]
"""What an entry point names: it takes the URL and opens the sink for a ``with`` block."""


def open_sink(url: str) -> AbstractAsyncContextManager[Sink]:
    """The sink of a URL, as an asynchronous context manager that opens and closes it.

    The scheme picks an entry point of the group ``dsql_outbox.sinks``; ours and
    those of other packages are found the same way. Raises `SettingsError` when
    no package has the scheme; on entering, what the sink raises:
    `SettingsError`, `MissingExtra` or `SinkUnavailable`.
    """
    scheme = url.partition(":")[0]
    found = list(entry_points(group=SINK_GROUP, name=scheme))
    if not found:
        hidden = "@" in url and "://" not in url  # what looks like a scheme may be a login
        kind = "this URL" if hidden else f"URLs {scheme}:"
        raise SettingsError(f"no sink for {kind}, there are {_known()}")
    return cast("SinkOpener", found[0].load())(url)


def _known() -> str:
    return ", ".join(f"{name}:" for name in sorted(entry_points(group=SINK_GROUP).names))
