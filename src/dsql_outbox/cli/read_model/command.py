"""The commands of `read-model`: their options."""

import inspect
import os
import sys
from importlib import import_module

import anyio
import click

from dsql_outbox.cli.database_options import database_options, open_database
from dsql_outbox.cli.exit_codes import short_errors
from dsql_outbox.cli.filters import json_option
from dsql_outbox.cli.logs import logs_on_stderr
from dsql_outbox.cli.missing_tables import tables_needed
from dsql_outbox.cli.options import option
from dsql_outbox.outbox import DEFAULT_SOURCE
from dsql_outbox.publisher import Apply, Rebuild

from .rebuild_run import RebuildRun


@click.group()
def read_model() -> None:
    """Rebuild a read model from the stored events."""


@read_model.command()
@click.option(
    "--apply",
    "name",
    required=True,
    metavar="MODULE:FUNCTION",
    help="The async function that the publisher applies, such as shop.balances:apply.",
)
@click.option(
    "--after", metavar="PLACE", help="Continue after this place, which an earlier run printed."
)
@option(
    "--source",
    default=DEFAULT_SOURCE,
    metavar="TEXT",
    help="The CloudEvents source. It is not stored, so repeat the one of the writers' settings.",
)
@json_option
@database_options
@short_errors()
@tables_needed()
def rebuild(  # noqa: PLR0913 - one parameter per flag
    *,
    name: str,
    after: str | None,
    source: str,
    as_json: bool,
    database: str | None,
    schema: str,
) -> None:
    """Apply all stored events again, in order per subject.

    Stop every publisher and empty the tables of the read model first. Dead letters and
    messages that wait in the outbox are left out; the publisher applies the latter when it
    runs again. The command refuses to run beside a publisher.

    The first Ctrl-C ends the rebuild after the transaction in progress, and prints the
    --after with which another run continues.
    """
    function = _function(name)
    with logs_on_stderr(verbose=False), open_database(database, schema) as found:
        tool = Rebuild(found, function, source=source)
        code = anyio.run(RebuildRun(tool, as_json=as_json).run, after)
    if code:
        raise click.exceptions.Exit(code)


def _function(name: str) -> Apply:
    """Import the function. Raises `click.UsageError` if it is not there, or not async."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise click.UsageError(
            f"--apply {name!r} is not MODULE:FUNCTION, such as shop.balances:apply"
        )
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        function: Apply = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise click.UsageError(f"--apply {name}: {error}") from error
    if not inspect.iscoroutinefunction(function):
        raise click.UsageError(f"--apply {name} must be an async function of (connection, message)")
    return function
