"""The output of `dev`: lines for people, or one JSON object per line.

Imports of this module are fast, because the first line must appear immediately.
"""

import os
import shlex
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

if TYPE_CHECKING:
    from .activity import Counts


class DevAddresses(NamedTuple):
    """The URLs of all parts, None for a part that is not installed.

    `folder` is where data is kept, None if it is removed at the end. `programs` is the
    folder of the program dsql-outbox.
    """

    database: str
    broker: str
    console: str | None
    health: str
    metrics: str | None
    folder: Path | None
    programs: Path


class DevLines:
    """The lines of one run. They fit the terminal, except for lines to copy."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def starting(self, folder: Path | None) -> None:
        """Everything is being started."""
        if self._as_json:
            return _json("starting", folder=folder and str(folder))
        return _wrapped(f"starting PostgreSQL and NATS in {folder or 'a temporary folder'}")

    def note(self, text: str) -> None:
        """A part is missing, and dev runs without it."""
        return _json("note", text=text) if self._as_json else _wrapped(text)

    def ready(self, places: DevAddresses) -> None:
        """Everything runs."""
        return _json_ready(places) if self._as_json else _text_ready(places)

    def change(self, counts: "Counts") -> None:
        """These events happened since the last change."""
        if self._as_json:
            return _json("change", **_built_in(counts))
        return _wrapped(_told(counts), f"{datetime.now().astimezone():%H:%M:%S}  ")

    def ended(self, counts: "Counts", folder: Path | None) -> None:
        """Everything has ended; `counts` are those of the whole run."""
        if self._as_json:
            return _json("ended", **_built_in(counts), folder=folder and str(folder))
        if sys.stdout.isatty():
            click.echo()  # below the ^C of the terminal
        _wrapped(f"stopped: {_told(counts) or 'nothing was written'}")
        if folder is not None:
            _wrapped(f"`dsql-outbox dev {shlex.quote(str(folder))}` continues with this data")
        return None


def _json_ready(places: DevAddresses) -> None:
    paths = {"folder": places.folder and str(places.folder), "programs": str(places.programs)}
    _json("ready", **places._asdict() | paths, sample=list(_sample(places)))


def _text_ready(places: DevAddresses) -> None:
    click.echo()
    for name, url in places._asdict().items():
        if isinstance(url, str):
            click.echo(f"{_bold(f'{name:<9}')} {url}")
    click.echo()
    _wrapped("Write events from a second terminal:")
    click.echo()
    for line in _sample(places):
        click.echo(f"  {line}")
    click.echo()
    kept = "removed at the end" if places.folder is None else f"kept in {places.folder}"
    _wrapped(f"Ctrl-C stops it. Data is {kept}.")
    click.echo()


def _sample(places: DevAddresses) -> Iterator[str]:
    """The lines to paste: the other terminal need not have this environment."""
    yield f'export PATH={shlex.quote(str(places.programs))}:"$PATH"'
    yield f"export DSQL_OUTBOX_DATABASE={shlex.quote(places.database)}"
    yield "dsql-outbox dev --sample 20 | dsql-outbox write"


def _told(counts: "Counts") -> str:
    parts = {
        "written": counts.written,
        "delivered": counts.delivered,
        "failed": counts.failed,
        "conflict" if counts.conflicts == 1 else "conflicts": counts.conflicts,
        "dead letter" if counts.dead_letters == 1 else "dead letters": counts.dead_letters,
    }
    return ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)


def _wrapped(text: str, first: str = "") -> None:
    from dsql_outbox.observability.shown_text import visible  # noqa: PLC0415 - brings OpenTelemetry

    width = get_terminal_size().columns
    lines = textwrap.wrap(
        visible(text), width - len(first), break_long_words=False, break_on_hyphens=False
    )
    for n, line in enumerate(lines):
        click.echo((" " * len(first) if n else first) + line)


def _bold(text: str) -> str:
    return text if "NO_COLOR" in os.environ else click.style(text, bold=True)


def _built_in(counts: "Counts") -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - not needed for the first line

    return cast("dict[str, Any]", msgspec.to_builtins(counts))


def _json(kind: str, **more: Any) -> None:
    from dsql_outbox.cli.output import json_line  # noqa: PLC0415 - brings OpenTelemetry

    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    json_line({"at": at, "kind": kind, **more})
