"""What ``demo --keep`` leaves running until a signal: a publisher and the console."""

import shlex
import sys
from pathlib import Path

import anyio
import click

from dsql_outbox.cli.signals import Interruption
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import MissingExtra
from dsql_outbox.publisher.publisher import Publisher
from dsql_outbox.servers.server_process import free_port


async def run_until_signal(database: Database, url: str, sink: str) -> None:
    """Relay from the database at `url` to `sink`, and serve the console, until a signal.

    Without the extra of the console it says so, and runs without it.
    """

    async def work() -> None:
        async with Publisher(database, sink):
            await _serve_console(database, url, sink)

    with anyio.CancelScope() as scope:
        await Interruption(scope.cancel).run(work)
    click.echo("stopped: its servers and their data are removed")


async def _serve_console(database: Database, url: str, sink: str) -> None:
    try:
        from dsql_outbox.console.access import login_url, new_token  # noqa: PLC0415 - an extra
        from dsql_outbox.console.console_server import CONSOLE_PORT, serve_console  # noqa: PLC0415 - an extra
    except ImportError:
        _show(url, sink, str(MissingExtra("console", "the console")))
        await anyio.sleep_forever()
    else:
        token = new_token()

        def ready(console: str) -> None:
            _show(url, sink, login_url(console, token))

        port = free_port(CONSOLE_PORT)
        await serve_console(database, port=port, token=token, ready=ready)


def _show(url: str, sink: str, console: str) -> None:
    """Print where everything is. Lines to copy are not wrapped."""
    broker, _, query = sink.partition("?stream=")
    click.echo(f"\ndatabase  {url}\nbroker    {broker} (stream {query})\nconsole   {console}")
    click.echo("\nIn a second terminal:\n")
    # It need not have this environment.
    click.echo(f'  export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    click.echo(f"  export DSQL_OUTBOX_DATABASE={shlex.quote(url)}")
    click.echo("  dsql-outbox status")
    click.echo("\nCtrl-C stops all of it, and removes the data.")
