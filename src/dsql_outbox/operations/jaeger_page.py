"""The page of Jaeger that lists the traces of an event. No request is made to Jaeger."""

import json
import re
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from dsql_outbox.observability import attributes as names
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.redaction import redacted

_BASE: Final = re.compile(r"https?://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[^?#@\s]*)?")
_SERVICE: Final = "dsql-outbox-publish"
"""The service that ``dsql-outbox publish`` names. Jaeger searches the spans of one service."""
_LOOKBACK: Final = "7d"


def require_base_url(url: str) -> str:
    """Return an HTTP base URL without its last slash. Raises `SettingsError` for any other text."""
    if not _BASE.fullmatch(url):
        shown = redacted(url) if "://" in url else "lacks http://"
        raise SettingsError(
            f"--jaeger {shown}: give a base URL without a login, such as http://localhost:16686"
        )
    return url.rstrip("/")


def trace_page(url: str, trace_id: str) -> str:
    """Return the URL of one trace."""
    return f"{url}/trace/{trace_id}"


def traces_page(url: str, event_id: UUID) -> str:
    """Return the URL of Jaeger's search, filled in: traces in which the event was published."""
    tags = json.dumps({names.EVENT_ID: str(event_id)})
    search = {"service": _SERVICE, "tags": tags, "lookback": _LOOKBACK}
    return f"{url}/search?{urlencode(search)}"
