"""The URLs of Jaeger's pages."""

from typing import Final
from urllib.parse import quote, urlsplit

_PORT: Final = 16686

DEFAULT_JAEGER: Final = f"http://localhost:{_PORT}"
"""The base URL of a Jaeger on this machine."""


def jaeger_beside(otlp_url: str) -> str:
    """The base URL of a Jaeger that takes spans at `otlp_url`, at its usual port."""
    host = urlsplit(otlp_url).hostname or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{_PORT}"


def page_of(url: str, trace_id: str) -> str:
    """The URL of Jaeger's page for a trace."""
    return f"{url}/trace/{quote(trace_id, safe='')}"
