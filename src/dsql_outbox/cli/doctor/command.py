"""The command `doctor`: its options and its exit code."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

import click

from dsql_outbox.cli.database_options import database_options, open_bare_database
from dsql_outbox.cli.exit_codes import FAILED, short_errors
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import json_line
from dsql_outbox.cli.signals import interruptible

from .checks import CHECKS
from .examination import findings, probed
from .examined_database import ExaminedDatabase
from .feature_probes import LARGE, PROBES
from .finding import Finding, Report
from .printout import show

_Questions = Mapping[str, Callable[[ExaminedDatabase], Iterator[Finding]]]


@click.command(
    epilog="""\b
Examples:
  dsql-outbox doctor --database postgresql://localhost/shop
  dsql-outbox doctor --probe --json

\b
Exit codes: 0 when nothing fails, 1 when something does, 2 wrong usage, 69 the
database cannot be reached.""",
)
@database_options
@option(
    "--probe",
    is_flag=True,
    show_default=False,
    help="Also try out features, in a table doctor_scratch that is dropped afterwards.",
)
@option(
    "--probe-large",
    is_flag=True,
    show_default=False,
    help="With --probe, also send a message of 11 MiB; the connection may break.",
)
@option("--json", "as_json", is_flag=True, show_default=False, help="Print one JSON object.")
@short_errors()
@interruptible("the database is as before; the same command begins again")
def doctor(
    *, database: str | None, schema: str, probe: bool, probe_large: bool, as_json: bool
) -> None:
    """Check a database before production, and say what to correct.

    Prints one line per check: ok, warn, fail, or unknown if the check could not
    be made. Without --probe nothing is written.
    """
    if probe_large and not probe:
        raise click.UsageError("--probe-large needs --probe")
    probes: _Questions = {**PROBES, **(LARGE if probe_large else {})} if probe else {}
    with open_bare_database(database, schema) as found, ExaminedDatabase(found) as visit:
        everything = chain(findings(visit, CHECKS), probed(visit, probes))
        told = list(everything) if as_json else show(everything, [*CHECKS, *probes])
    failed = any(finding.verdict == "fail" for finding in told)
    if as_json:
        json_line(Report(schema, failed, tuple(told)))
    if failed:
        raise click.exceptions.Exit(FAILED)
