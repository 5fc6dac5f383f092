"""The command `publish`: its options, its settings, and the file of --topics."""

import sys
import tomllib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, cast

import click
import msgspec

from dsql_outbox.cli.relay.daemon import Address, Daemon, address
from dsql_outbox.cli.relay.relay_counts import CountsText
from dsql_outbox.cli.relay.relay_run import RelayRun
from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.metering import measure
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.registry import known_schemes, open_sink
from dsql_outbox.publisher.topic_settings import TopicSettings
from dsql_outbox.schema.target_rows import metric_name

from .database_options import with_database
from .event_loop import run
from .logs import LogFormat, announce
from .named_functions import applied_function, named_map
from .options import option
from .progress_line import EVERY, is_live, lines, live

_KEYS: Final = tuple(field.name for field in fields(TopicSettings))

_DRAIN: Final = 20.0
_EVERY: Final = 60.0
"""Seconds between two lines about the progress of a daemon that has no terminal."""

_SERVICE: Final = "dsql-outbox-publish"


def read_topics(file: Path) -> Mapping[str, TopicSettings]:
    """The settings of the topics, by pattern, in the order of the file.

    Raises `SettingsError`, which names the file and the key, for a file that cannot be read
    or is not TOML, for an unknown key, and for an invalid value.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from error
    topics = {pattern: _parse(file, pattern, table) for pattern, table in tables.items()}
    try:
        PublisherSettings(topics=topics)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error
    return topics


def _parse(file: Path, pattern: str, table: object) -> TopicSettings:
    if not isinstance(table, dict):
        raise SettingsError(
            f"{file}: {pattern} is no table: write a pattern of topics as a table, "
            f'["events.*"], and the keys {", ".join(_KEYS)} in it'
        )
    for key, value in cast("dict[str, object]", table).items():
        if isinstance(value, dict):
            raise SettingsError(
                f"{file}: table [{pattern}.{key}] needs quotes, because of the dot: "
                f'["{pattern}.{key}"]'
            )
        if key not in _KEYS:
            raise SettingsError(
                f'{file}: unknown key {key} in ["{pattern}"], there are {", ".join(_KEYS)}'
            )
    try:
        return msgspec.convert(table, TopicSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f'{file}: ["{pattern}"]: {error}') from error


class _SinkOption(click.Option):
    """Its help lists the schemes of all sinks. It looks for them only when it is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = (
            "The URL of the sink, such as nats://HOST[:PORT]. Without its extra, a sink names what "
            f"to install. Schemes: {known_schemes()}"
        )
        return super().get_help_record(ctx)


def _known_sink(ctx: click.Context, param: click.Parameter, url: str | None) -> str | None:
    """Refuse a sink that cannot be opened, before the database is. It connects to nothing yet."""
    del ctx, param
    if url is not None:
        open_sink(url)
    return url


def _topics(
    ctx: click.Context, param: click.Parameter, file: Path | None
) -> Mapping[str, TopicSettings]:
    del ctx, param
    return {} if file is None else read_topics(file)


@click.command(
    epilog="""\b
Example:
  dsql-outbox publish --database postgresql://localhost/shop --sink nats://localhost

\b
Exit codes:
  0    stopped by a signal, or the outbox is empty (--until-empty)
  1    with --until-empty: the publisher gave up on a message; the reader of
       stdout: has gone; another error
  2    wrong usage, a missing extra, a sink that can never work, or
       --listen has no such address
  69   the database cannot be reached at the start, or accepts no writes
  75   stopped by a signal, but not done within --drain; or nothing could be
       sent for --max-wait, and messages wait
  78   the tables are missing: run `dsql-outbox schema apply`
  130  stopped immediately by a second Ctrl-C""",
)
@option("--sink", metavar="URL", cls=_SinkOption, callback=_known_sink)
@option(
    "--map",
    "map_name",
    metavar="MODULE:FUNCTION",
    show_default=False,
    help="Send what this function makes of each message in place of the event, such as "
    "shop.contracts:to_message. `messages show EVENT --map` tries it.",
)
@option(
    "--apply",
    "name",
    metavar="MODULE:FUNCTION",
    show_default=False,
    help="In place of --sink, apply the messages of a target of the kind `model` by this async "
    "function, such as shop.balances:apply.",
)
@option(
    "--target",
    default=DEFAULT_TARGET,
    show_default=False,
    metavar="NAME",
    help="The target whose messages to relay, of those that `dsql-outbox targets list` shows. "
    "Without it, those of the target `default`.",
)
@click.option(
    "--until-empty",
    is_flag=True,
    help="End when the whole outbox is empty, shards of other publishers included. "
    "A blocked message stays in it.",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --until-empty, also end after this time without a message that can be sent: "
    "messages wait after a failure, or the broker or the database cannot be reached. "
    "0: as soon as nothing can be sent.",
)
@option(
    "--on-dead-letter",
    type=click.Choice(["release", "block"]),
    default=PublisherSettings.on_dead_letter,
    help="For a message that the publisher gives up on: move it to the dead letters, "
    "or block its subject until an operator decides.",
)
@option(
    "--topics",
    type=click.Path(path_type=Path),
    metavar="FILE",
    show_default=False,
    callback=_topics,
    help='Settings of some topics, in TOML: a table per pattern such as ["events.Loan*"], '
    f"with {', '.join(_KEYS[:-1])} and {_KEYS[-1]}.",
)
@option(
    "--idle-max",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    show_default=False,
    help="The longest wait between two reads of an idle publisher. Without it, 0.05 s on "
    "PostgreSQL, and 1 s on Aurora DSQL, where each read costs money.",
)
@option(
    "--doorbell",
    is_flag=True,
    show_default=False,
    help="On PostgreSQL, also read when a writer with `doorbell` has committed. "
    "No ring arrives through a pooler.",
)
@option(
    "--lease",
    type=click.FloatRange(min=0.1),
    default=PublisherSettings.lease,
    metavar="SECONDS",
    help="The duration of a lease. After 1.2 times that, others take over "
    "the shards of a publisher that died.",
)
@option(
    "--drain",
    type=click.FloatRange(min=0),
    default=_DRAIN,
    metavar="SECONDS",
    help="The time for messages in flight after SIGTERM or Ctrl-C.",
)
@option(
    "--listen",
    type=address,
    metavar="HOST:PORT",
    show_default=False,
    help="Serve /healthz, /readyz and /metrics at this address, over HTTP without a password.",
)
@with_database(duty="publisher", log_flags=True)
def publish(
    *,
    database: Database,
    sink: str | None,
    map_name: str | None,
    name: str | None,
    target: str,
    until_empty: bool,
    max_wait: float | None,
    lease: float,
    drain: float,
    listen: Address | None,
    log_format: LogFormat,
    **chosen: Any,
) -> None:
    """Relay stored events to a broker, in order per subject, at least once.

    Run as many publishers as you like: they share the work, and take over from
    each other.

    Runs until SIGTERM, SIGHUP or Ctrl-C, then waits for the messages in flight, for --drain
    seconds at most. A second Ctrl-C stops immediately. A message that was not acknowledged
    stays in the outbox.

    While the broker cannot be reached, also at the start, the command waits and logs a
    warning every few seconds. With --until-empty it waits too, unless you limit the wait or
    nothing is stored: an empty outbox needs no broker.
    """
    if (sink is None) == (name is None):
        raise click.UsageError("give either --sink URL or --apply MODULE:FUNCTION")
    if map_name is not None and name is not None:
        raise click.UsageError("--map needs --sink: --apply gets each message as it is stored")
    function = None if name is None else applied_function(name)
    message_map = None if map_name is None else named_map(map_name)
    if max_wait is not None and not until_empty:
        raise click.UsageError("--max-wait needs --until-empty")
    # Its drain is longer than the command's own limit, which must come first: it sets exit code 75.
    settings = PublisherSettings(**chosen, lease=lease, drain=drain + lease)
    with exporting() as exports:
        record_spans(exports, _SERVICE)
        meters = measure(
            exports, _SERVICE, prometheus=listen is not None, target=metric_name(target)
        )
        relaying = RelayRun(
            database,
            sink,
            settings,
            until_empty=until_empty,
            max_wait=max_wait,
            target=target,
            map=message_map,
            apply=function,
            hooks=meters.hooks,
        )
        daemon = Daemon(relaying, meters, listen=listen, drain=drain)
        with _progress(relaying, log_format, every=EVERY if until_empty else _EVERY):
            code = run(daemon.run)
    raise click.exceptions.Exit(code)


def _progress(
    relaying: RelayRun, log_format: LogFormat, *, every: float
) -> AbstractContextManager[object]:
    """Show the progress: live on a terminal, else a line every `every` seconds."""
    text = CountsText(relaying.counts, oldest=lambda: relaying.probe.oldest_seconds)
    if log_format == "text" and is_live() and not (relaying.uses_stdout and sys.stdout.isatty()):
        return live(text.view)
    return lines(text.line, every=every, tell=announce)
