"""The report of ``doctor --report``: Markdown for readers, with JSON lines for programs."""

import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import msgspec
from psycopg import ConnectionInfo, pq

from dsql_outbox.cli.doctor.finding import Finding, Report, Value
from dsql_outbox.observability.shown_text import visible

from .isolation import NAME as ISOLATION
from .isolation_cases import CASES


class DatedReport(msgspec.Struct, frozen=True):
    """All findings with their date and versions, without names of hosts and roles.

    `date` is in UTC. `versions` are those of the library and of its environment. `region` is
    the AWS Region of an Aurora DSQL cluster. `missing` are the checks that are still to come.
    """

    date: datetime
    versions: Mapping[str, str]
    region: str | None
    report: Report
    missing: Sequence[str] = ()


class Place(NamedTuple):
    """Where the examined database is: names that no report may tell, and the AWS Region."""

    names: Mapping[str, str]
    region: str | None


def place_of(info: ConnectionInfo) -> Place:
    """The place of a connection that is open."""
    found = re.search(r"\.dsql\.([\w-]+)\.", info.host)
    return Place(_names(info), found and found[1])


def dated(report: Report, place: Place, missing: Sequence[str] = ()) -> DatedReport:
    """The report as of now."""
    shown = tuple(_anonymous(finding, place.names) for finding in report.findings)
    return DatedReport(
        datetime.now(UTC).replace(microsecond=0),
        _versions(),
        place.region,
        msgspec.structs.replace(report, findings=shown),
        missing,
    )


def markdown(dated_report: DatedReport) -> str:
    """The report as a page."""
    return "\n".join([*_head(dated_report), *_body(dated_report), ""])


def write_report(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in place of `path`. Raises `OSError`.

    The file is new, so neither a link in place of `path` nor another open file is written to.
    """
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def _head(dated_report: DatedReport) -> Iterator[str]:
    findings = dated_report.report.findings
    counts = Counter(finding.verdict for finding in findings)
    yield f"# dsql-outbox doctor, {dated_report.date:%Y-%m-%d %H:%M} UTC"
    yield ""
    yield ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    yield ""
    if dated_report.missing:
        yield from (f"Not complete. Still to come: {', '.join(dated_report.missing)}.", "")
    yield from _table(("with", "version"), dated_report.versions.items())
    if dated_report.region:
        yield f"| AWS Region | {dated_report.region} |"


def _body(dated_report: DatedReport) -> Iterator[str]:
    findings = dated_report.report.findings
    yield from ("", "## Findings", "")
    yield from _table(("verdict", "check", "found"), map(_row, findings))
    for finding in findings:
        if finding.name == ISOLATION and finding.values:
            yield from ("", "## Isolation cases", "")
            rows = [(case.name, case.anomaly, finding.values[case.name]) for case in CASES]
            yield from _table(("case", "anomaly", "result"), rows)
    yield from ("", "## For programs", "", "```jsonl", *json_lines(dated_report), "```")


def json_lines(dated_report: DatedReport) -> Iterator[str]:
    """A line about the report, and one per question; the names of questions do not change."""
    report = dated_report.report
    about = msgspec.structs.asdict(dated_report) | {
        "report": {"schema": report.schema, "failed": report.failed}
    }
    yield msgspec.json.encode(about).decode()
    for finding in report.findings:
        yield msgspec.json.encode(finding).decode()


def _row(finding: Finding) -> Sequence[str]:
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    return finding.verdict, finding.name, finding.text + remedy


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(_cell(str(cell)) for cell in row)} |"


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|")


def _versions() -> Mapping[str, str]:
    return {
        "dsql-outbox": version("dsql-outbox"),
        "Python": platform.python_version(),
        "psycopg": version("psycopg"),
        "libpq": str(pq.version()),
        "system": platform.system(),
    }


def _names(info: ConnectionInfo) -> Mapping[str, str]:
    """The names that a reader of the report must not learn, each with what stands for it."""
    cluster = info.host.partition(".dsql.")[0]
    found = {info.user: "ROLE", cluster: "HOST", info.hostaddr: "HOST", info.host: "HOST"}
    return {name: word for name, word in found.items() if name}


def _anonymous(finding: Finding, names: Mapping[str, str]) -> Finding:
    return msgspec.structs.replace(
        finding,
        text=_without(finding.text, names),
        remedy=finding.remedy and _without(finding.remedy, names),
        values={name: _hidden(value, names) for name, value in finding.values.items()},
    )


def _hidden(value: Value, names: Mapping[str, str]) -> Value:
    return _without(value, names) if isinstance(value, str) else value


def _without(text: str, names: Mapping[str, str]) -> str:
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in longest_first)
    return re.sub(pattern, lambda found: names[found[0]], text)
