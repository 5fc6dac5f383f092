"""The console: web pages that show the outbox and change nothing (docs/console.md).

- `application` makes the application, whose state is `console_state`, and `console_server` serves
  it.
- `guard` refuses foreign hosts and clients; `access` checks the token and limits wrong ones.
- `sampler` reads the status at intervals, and `samples` keeps the data of the charts.
- `overview`, `record_pages` and `message_list` answer requests, and `problems` is the page for an
  error.
- `charts` are the drawings, and `layout` fills the templates.
"""

from dsql_outbox.outbox.errors import MissingExtra

try:
    from .access import login_url, new_token
    from .application import console_app
    from .console_server import CONSOLE_PORT, serve_console
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"starlette", "jinja2", "markupsafe"}:
        raise
    raise MissingExtra("console", "dsql_outbox.console") from error

__all__ = ["CONSOLE_PORT", "console_app", "login_url", "new_token", "serve_console"]
