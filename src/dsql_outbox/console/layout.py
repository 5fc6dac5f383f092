"""Fills the templates. Every text in them is escaped, and control characters become visible."""

from datetime import datetime
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dsql_outbox.observability.shown_text import duration, visible
from dsql_outbox.outbox.message import subject_key

from .console_state import console_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def _shown(value: object) -> object:
    r"""Make control characters visible in a text that a template prints, such as ``\x1b``."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Markup:
    """A text of several lines, with its other control characters visible."""
    return Markup("\n").join(visible(line) for line in text.split("\n"))


def _pretty(text: str) -> str:
    """JSON with indentation, its numbers and names as they are stored; any other text as it is."""
    try:
        return msgspec.json.format(text, indent=2)
    except (ValueError, RecursionError):
        return text


def _key(names: tuple[str, str]) -> str:
    return subject_key(*names)


def _time(at: datetime | None) -> Markup:
    """A time in UTC, to the second."""
    if at is None:
        return Markup("never")
    text = at.strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), text)


def _bytes(size: int) -> str:
    return f"{size:,} bytes"


def link(base: str, path: str, **query: object) -> str:
    """A path of this console with a query; values that are None or empty are left out."""
    given = {name: value for name, value in query.items() if value not in (None, "", False)}
    return f"{base}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")


_templates: Final = Environment(
    loader=PackageLoader("dsql_outbox.console"),
    autoescape=True,
    finalize=_shown,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "bytes": _bytes,
    "count": "{:,}".format,
    "duration": duration,
    "key": _key,
    "lines": _lines,
    "pretty": _pretty,
    "time": _time,
}
_VERSION: Final = version("dsql-outbox")


def render(request: Request, template: str, **values: Any) -> str:
    """The text of a template."""
    console = console_of(request)
    base = request.scope.get("root_path", "")
    shared: Mapping[str, Any] = {
        "version": _VERSION,
        "link": partial(link, base),
        "commands": console.commands,
        "database": console.database.address,
        "schema": console.database.schema,
        "lets_in": console.access.lets_in(request.cookies),
        "path": request.scope["path"].removeprefix(base),
    }
    return _templates.get_template(template).render({**shared, **values})


def page(
    request: Request, template: str, code: HTTPStatus = HTTPStatus.OK, **values: Any
) -> Response:
    """An answer with a page."""
    return HTMLResponse(render(request, template, **values), code)
