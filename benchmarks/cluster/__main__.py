"""``make cluster-report``: what a cluster of Aurora DSQL answers, and if the library holds there.

Makes the checks and the probes of ``dsql-outbox doctor --probe``. Then asks what the cluster
answers at its limits and what work costs, and tries isolation, conflicting writes and a take-over
between two publishers, in a schema `outbox_doctor`, which is removed afterwards. Writes a report.
`isolation_cases` are Hermitage's cases (pure) and `isolation` runs them. `twenty_writes` and
`hot_storm` write under conflict, `takeover` kills a publisher, and `hour` keeps a connection.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import click

from dsql_outbox.cli.database_options import database_address
from dsql_outbox.cli.doctor.checks import CHECKS
from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase, findings, probed
from dsql_outbox.cli.doctor.feature_probes import PROBES
from dsql_outbox.cli.doctor.finding import Finding, Report, show
from dsql_outbox.outbox import Database

from .isolation import NAME as ISOLATION
from .isolation import isolation_cases
from .probes import REPORTED
from .proofs import HOUR, PROOFS, proved
from .report_file import Place, dated, markdown, place_of, write_report


def main(words: list[str] | None = None) -> int:
    """Write the report. Return 1 if a finding fails, else 0."""
    parser = argparse.ArgumentParser(prog="make cluster-report", description=__doc__)
    parser.add_argument("database", help="URL of the database")
    parser.add_argument("report", type=Path, help="the file to write")
    parser.add_argument("--schema", default="outbox")
    parser.add_argument(
        "--hour",
        action="store_true",
        help="also keep a connection for 65 minutes and write an event every 10 s; Ctrl-C ends it",
    )
    given = parser.parse_args(words)
    _require_place(parser, given.report)
    probes = {**PROBES, **REPORTED, ISOLATION: isolation_cases}
    proofs = {**PROOFS, **(HOUR if given.hour else {})}
    names = [*CHECKS, *probes, *proofs]
    with (
        database_address(given.database) as address,
        ExaminedDatabase(Database(address, schema=given.schema)) as visit,
    ):
        everything = chain(
            findings(visit, CHECKS), probed(visit, probes), proved(visit, address, proofs)
        )
        place = place_of(visit.connection.info)
        told = show(kept(everything, names, given.schema, place, given.report), names)
    return 1 if _report(given.schema, told).failed else 0


def _require_place(parser: argparse.ArgumentParser, report: Path) -> None:
    if not report.parent.is_dir():
        parser.error(f"the folder {report.parent} does not exist")
    if report.is_symlink() or (report.exists() and not report.is_file()):
        parser.error(f"{report} is a link or no regular file; name another")


def _report(schema: str, told: Iterable[Finding]) -> Report:
    found = tuple(told)
    return Report(schema, any(each.verdict == "fail" for each in found), found)


def kept(
    everything: Iterable[Finding], names: list[str], schema: str, place: Place, report: Path
) -> Iterator[Finding]:
    """Pass the findings on. After each, the file has all so far, however the run ends."""
    told: list[Finding] = []
    for finding in everything:
        yield finding
        told.append(finding)
        missing = [name for name in names if name not in {each.name for each in told}]
        write_report(report, markdown(dated(_report(schema, told), place, missing)))
    write_report(report, markdown(dated(_report(schema, told), place)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except click.ClickException as error:
        sys.exit(f"Error: {error.format_message()}")
    except KeyboardInterrupt:
        sys.exit(130)
