"""The command `doctor`: its options and its exit code."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import click

from dsql_outbox.cli.database_options import database_address, database_options
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import json_line
from dsql_outbox.cli.signals import interruptible
from dsql_outbox.outbox import Database

from .checks import CHECKS
from .cluster_probes import compression, memory_limit, statement_costs
from .examined_database import ExaminedDatabase, findings, probed
from .feature_probes import LARGE, PROBES
from .finding import Finding, Report, show
from .proof.isolation import NAME as ISOLATION
from .proof.isolation import isolation_cases
from .proof.proofs import HOUR, PROOFS, proved
from .report_file import Place, dated, markdown, place_of, write_report
from .statement_probes import infinity

_Questions = Mapping[str, Callable[[ExaminedDatabase], Iterator[Finding]]]


@click.command(
    epilog="""\b
Examples:
  dsql-outbox doctor --database postgresql://localhost/shop
  dsql-outbox doctor --probe --json
  dsql-outbox doctor --probe --report report.md

Exit codes: 0 when nothing fails, 1 when something does, 2 wrong usage, 69 the
database cannot be reached.""",
)
@database_options
@option(
    "--probe",
    is_flag=True,
    show_default=False,
    help="Also try features, in a table doctor_scratch, which is dropped afterwards.",
)
@option(
    "--probe-large",
    is_flag=True,
    show_default=False,
    help="With --probe, also send a message of 11 MiB; the connection may break.",
)
@option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    show_default=False,
    help="With --probe, also ask what a cluster answers at its limits and what work costs, and try "
    "isolation, conflicting writes and a take-over between two publishers, in a schema "
    "outbox_doctor, which is removed afterwards. Write a report to FILE.",
)
@option(
    "--hour",
    is_flag=True,
    show_default=False,
    help="With --report, also keep a connection for 65 minutes, and write an event every 10 s. "
    "Ctrl-C ends the hour, and its line has what was seen so far.",
)
@option("--json", "as_json", is_flag=True, show_default=False, help="Print one JSON object.")
@interruptible("the database is unchanged; run the same command again")
def doctor(
    *,
    database: str | None,
    schema: str,
    probe: bool,
    probe_large: bool,
    report: Path | None,
    hour: bool,
    as_json: bool,
) -> None:
    """Check a database before production, and suggest remedies.

    Prints one line per check: ok, warn, fail, or unknown if the check could not
    be made. Without --probe nothing is written.
    """
    _require_probe(probe=probe, probe_large=probe_large, report=report, hour=hour)
    probes: _Questions = {
        **(PROBES if probe else {}),
        **(LARGE if probe_large else {}),
        **(REPORTED if report else {}),
    }
    proofs = {**(PROOFS if report else {}), **(HOUR if hour else {})}
    names = [*CHECKS, *probes, *proofs]
    with (
        database_address(database) as address,
        ExaminedDatabase(Database(address, schema=schema)) as visit,
    ):
        last = proved(visit, address, proofs) if proofs else iter(())
        everything: Iterator[Finding] = chain(findings(visit, CHECKS), probed(visit, probes), last)
        if report:
            place = place_of(visit.connection.info)
            everything = _kept(everything, names, schema, place, report)
        told = list(everything) if as_json else show(everything, names)
    found = _report(schema, told)
    if as_json:
        json_line(found)
    if found.failed:
        raise click.exceptions.Exit(FAILED)


REPORTED: _Questions = {
    "infinity": infinity,
    "query memory": memory_limit,
    "statement costs": statement_costs,
    "compression": compression,
    ISOLATION: isolation_cases,
}
"""Probes that only a report has, since they take seconds."""


def _require_probe(*, probe: bool, probe_large: bool, report: Path | None, hour: bool) -> None:
    if probe_large and not probe:
        raise click.UsageError("--probe-large needs --probe")
    if report and not probe:
        raise click.UsageError("--report needs --probe")
    if hour and not report:
        raise click.UsageError("--hour needs --report")
    if report and not report.parent.is_dir():
        raise click.UsageError(f"--report: the folder {report.parent} does not exist")
    if report and (report.is_symlink() or (report.exists() and not report.is_file())):
        raise click.UsageError(f"--report: {report} is a link or no regular file; name another")


def _report(schema: str, told: Sequence[Finding]) -> Report:
    return Report(schema, any(each.verdict == "fail" for each in told), tuple(told))


def _kept(
    everything: Iterable[Finding], names: Sequence[str], schema: str, place: Place, report: Path
) -> Iterator[Finding]:
    """Pass the findings on. After each, the file has all so far, however the command ends."""
    told: list[Finding] = []
    for finding in everything:
        yield finding
        told.append(finding)
        missing = [name for name in names if name not in {each.name for each in told}]
        _write(report, markdown(dated(_report(schema, told), place, missing)))
    _write(report, markdown(dated(_report(schema, told), place)))


def _write(report: Path, text: str) -> None:
    try:
        write_report(report, text)
    except OSError as error:
        why = error.strerror or error
        raise click.ClickException(f"--report: {report} cannot be written: {why}") from error
