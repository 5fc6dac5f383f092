"""The command `console`: its options and its output."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio
import click

from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .logs import logs_on_stderr
from .options import option
from .output import say
from .signals import Interruption

TOKEN: Final = "DSQL_OUTBOX_CONSOLE_TOKEN"  # noqa: S105 - the name of a variable


@click.command(
    short_help="Show the outbox in a browser.",
    epilog=f"""\b
Examples:
  dsql-outbox console
  dsql-outbox console --jaeger http://localhost:16686
  {TOKEN}=$(openssl rand -hex 16) \\
    dsql-outbox console --host 0.0.0.0 --allow-host outbox.example.com

\b
Exit codes:
  0    ended by Ctrl-C or SIGTERM
  2    wrong usage, or an address in use""",
)
@option("--host", default="127.0.0.1", metavar="ADDRESS", help="The address to listen on.")
@option(
    "--port",
    envvar="DSQL_OUTBOX_PORT_NUMBER",  # Kubernetes sets .._PORT for a Service named dsql-outbox
    type=click.IntRange(0, 65535),
    default=8640,
    help="The port to listen on; 0 lets the system choose.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A host name under which browsers reach the console. May be repeated.",
)
@option(
    "--open-to-this-machine",
    is_flag=True,
    show_default=False,
    help="Ask for no token: every user of this machine may read all events, and so may whoever "
    "a proxy on this machine lets in.",
)
@option(
    "--jaeger", metavar="URL", help="The base URL of Jaeger 2, to link each event to its traces."
)
@option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    metavar="SECONDS",
    help="The time between two reads of the status.",
)
@with_database()
def console(*, database: Database, open_to_this_machine: bool, **serving: Any) -> None:
    """Show the outbox in a browser. The console changes nothing.

    It prints a URL with a random token, which logs a browser in. For a token of your own, set
    the environment variable DSQL_OUTBOX_CONSOLE_TOKEN. The browser then asks for it.
    """
    from dsql_outbox.console.access import login_url, new_token  # noqa: PLC0415 - an extra
    from dsql_outbox.console.console_server import serve_console  # noqa: PLC0415 - an extra

    # Not an option: every user of the machine may list the words of a command.
    chosen = os.environ.get(TOKEN) or None
    if chosen and open_to_this_machine:
        raise click.UsageError(f"--open-to-this-machine asks for no token, but {TOKEN} is set")
    token = None if open_to_this_machine else chosen or new_token()

    def ready(url: str) -> None:
        # A token that the operator chose is not printed.
        shown = url if chosen or token is None else login_url(url, token)
        say(f"console at {shown} (Ctrl-C ends it)")

    serving |= {"open_to_this_machine": open_to_this_machine, "token": token, "ready": ready}
    with logs_on_stderr(announcing=False):
        anyio.run(_until_signal, partial(serve_console, database, **serving))


async def _until_signal(work: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope() as scope:
        await Interruption(scope.cancel).run(work)
