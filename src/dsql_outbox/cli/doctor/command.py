"""The command `doctor`: its options and its exit code."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain

import click
import psycopg

from dsql_outbox.cli.database_options import database_address, database_options
from dsql_outbox.cli.exit_codes import FAILED, UNREACHABLE
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import json_line
from dsql_outbox.cli.signals import interruptible
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.publisher.sinks.registry import open_sink

from .checks import CHECKS
from .examined_database import ExaminedDatabase, findings, probed, unopened
from .feature_probes import PROBES
from .finding import Finding, Report, show
from .sink_check import SINK
from .sink_check import sink as look_at_sink

_Questions = Mapping[str, Callable[[ExaminedDatabase], Iterator[Finding]]]


@click.command(
    epilog="""\b
Examples:
  dsql-outbox doctor --database postgresql://localhost/shop
  dsql-outbox doctor --sink nats://localhost
  dsql-outbox doctor --probe --json

Exit codes: 0 when nothing fails, 1 when something does, 2 wrong usage, 69 the
database cannot be reached: the line `server` has the reason and what helps.""",
)
@database_options
@option(
    "--sink",
    metavar="URL",
    show_default=False,
    help="Also open this sink as `publish` does, and look how its broker keeps the topics.",
)
@click.option(
    "--probe",
    is_flag=True,
    help="Also try features, in a table doctor_scratch, which is dropped afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@interruptible("the database is unchanged; run the same command again")
def doctor(
    *,
    database: str | None,
    schema: str,
    sink: str | None,
    probe: bool,
    as_json: bool,
) -> None:
    """Check a database before production, and suggest remedies.

    Prints one line per check: ok, warn, fail, or unknown if the check could not
    be made. Without --probe nothing is written.
    """
    probes: _Questions = PROBES if probe else {}
    checks: _Questions = CHECKS
    if sink is not None:
        open_sink(sink)  # it connects to nothing yet; a malformed URL fails here
        checks = {**CHECKS, SINK: partial(look_at_sink, url=sink)}
    code = FAILED
    with ExitStack() as stack:
        address = stack.enter_context(database_address(database))
        try:
            visit = stack.enter_context(ExaminedDatabase(Database(address, schema=schema)))
        except psycopg.OperationalError as error:
            everything: Iterator[Finding] = iter([unopened(error)])
            code = UNREACHABLE
        else:
            everything = chain(findings(visit, checks), probed(visit, probes))
        told = list(everything) if as_json else show(everything, [*checks, *probes])
    found = _report(schema, told)
    if as_json:
        json_line(found)
    if found.failed:
        raise click.exceptions.Exit(code)


def _report(schema: str, told: Sequence[Finding]) -> Report:
    return Report(schema, any(each.verdict == "fail" for each in told), tuple(told))
