"""``dsql-outbox publish``: the relay as a daemon or a job."""

import logging
from dataclasses import dataclass
from typing import Literal

import anyio
import click

from dsql_outbox.observability import Fact, Hook, RoundEnded
from dsql_outbox.outbox import Database, SinkUnavailable
from dsql_outbox.publisher import Publisher, PublisherSettings, Sink, open_sink
from dsql_outbox.schema import statement

from ._database import database_options, open_database
from ._errors import FAILED, short_errors
from ._logs import logs_on_stderr
from ._options import option, verbose_option
from ._signals import Interruption
from ._tables import schema_error, tables_needed
from ._tracing import tracing

logger = logging.getLogger("dsql_outbox")


@click.command(
    epilog="""\b
Example:
  dsql-outbox publish --database postgresql://localhost/shop --sink nats://localhost

\b
Exit codes:
  0    stopped by a signal, or the outbox is empty (--until-empty)
  1    the database cannot be reached at the start, or nobody reads stdout:
  2    wrong usage, or a missing extra
  78   the tables are missing: run `dsql-outbox schema apply`
  130  stopped at once by a second Ctrl-C""",
)
@database_options
@option(
    "--sink",
    required=True,
    metavar="URL",
    help="Where to: nats://HOST[:PORT], jsonl:FILE or stdout:",
)
@option(
    "--until-empty",
    is_flag=True,
    show_default=False,
    help="End when the outbox is empty. A blocked message stays in it.",
)
@option(
    "--on-dead-letter",
    type=click.Choice(["release", "block"]),
    default=PublisherSettings.on_dead_letter,
    help="What becomes of a message that is given up: move it to the dead letters, "
    "or let its subject wait for an operator.",
)
@option(
    "--batch-rows",
    type=click.IntRange(min=1),
    default=PublisherSettings.batch_rows,
    help="About how many messages a round reads.",
)
@verbose_option
@short_errors()
@tables_needed()
def publish(  # noqa: PLR0913 - one parameter a flag
    *,
    database: str | None,
    schema: str,
    sink: str,
    until_empty: bool,
    on_dead_letter: Literal["release", "block"],
    batch_rows: int,
    verbose: bool,
) -> None:
    """Relay stored events to a broker, in order per subject, at least once.

    Runs until SIGTERM or Ctrl-C, then finishes the round in hand; a second
    Ctrl-C stops at once. Nothing is lost either way: what was not acknowledged
    stays in the outbox.

    A broker that cannot be reached is waited for, at the start as well as later
    and with --until-empty too; a warning says so every few seconds.
    """
    open_sink(sink)  # opens nothing yet, but refuses an unknown kind before anything else happens
    settings = PublisherSettings(batch_rows=batch_rows, on_dead_letter=on_dead_letter)
    with (
        logs_on_stderr(verbose=verbose),
        open_database(database, schema) as found,
        tracing("dsql-outbox-publish"),
    ):
        relaying = _Relaying(found, sink, settings, until_empty=until_empty)
        interruption = Interruption(relaying.stop)
        anyio.run(interruption.run, relaying.run)
    if interruption.at_once:
        raise click.exceptions.Exit(interruption.exit_code)
    if relaying.nobody_reads:
        raise click.exceptions.Exit(FAILED)


@dataclass
class _Totals:
    """A hook that adds the rounds up."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0

    def __call__(self, fact: Fact, /) -> None:
        if isinstance(fact, RoundEnded):
            self.delivered += fact.delivered
            self.failed += fact.failed
            self.dead += fact.dead

    def __str__(self) -> str:
        return f"relayed {self.delivered:,}, failed {self.failed:,}, dead {self.dead:,}"


class _Relaying:
    """One run of the publisher, with what comes before its first round."""

    def __init__(
        self, database: Database, sink: str, settings: PublisherSettings, *, until_empty: bool
    ) -> None:
        self._database = database
        self._sink = sink
        self._settings = settings
        self._until_empty = until_empty
        self._stopped = anyio.Event()
        self._publisher: Publisher | None = None
        self.nobody_reads = False

    async def run(self) -> None:
        """Relay until `stop`, and say so.

        Raises `SchemaError`, `SettingsError` or `MissingExtra`, and the
        driver's error if the database cannot be reached.
        """
        shards = await self._shards()
        place = f"from {self._database!r} to {_without_secrets(self._sink)}"
        click.echo(f"relaying {place}, {shards} shards", err=True)
        totals = _Totals()
        try:
            while not self._stopped.is_set():
                await self._try_to_relay(totals)
        finally:
            click.echo(str(totals), err=True)

    def stop(self) -> None:
        """End after the round in hand, or stop waiting for the broker."""
        self._stopped.set()
        if self._publisher is not None:
            self._publisher.stop()

    def _watch_output(self, fact: Fact, /) -> None:
        """A hook: a broker comes back, one who read our standard output does not."""
        lost = isinstance(fact, RoundEnded) and not fact.sink_available
        if lost and self._sink == "stdout:":
            self.nobody_reads = True
            self.stop()

    async def _shards(self) -> int:
        """The number of shards; so the tables are looked for before the broker is."""
        async with await self._database.connect_async() as connection:
            with schema_error(self._database.schema):
                cursor = await connection.execute(statement("shard_count", self._database.schema))
            ((shards,),) = await cursor.fetchall()
            return int(shards)

    async def _try_to_relay(self, totals: _Totals) -> None:
        """Relay to the end, or wait a while if there is no broker yet."""
        try:
            async with open_sink(self._sink) as sink:
                await self._relay(sink, totals)
            self._stopped.set()
        except SinkUnavailable as error:
            seconds = self._settings.broker_wait
            logger.warning("Relay waits %g s for the broker: %s", seconds, error)
            with anyio.move_on_after(seconds):
                await self._stopped.wait()

    async def _relay(self, sink: Sink, totals: _Totals) -> None:
        hooks: list[Hook] = [totals, self._watch_output]
        self._publisher = Publisher(self._database, sink, self._settings, hooks=hooks)
        if self._stopped.is_set():  # while the sink was being opened
            return
        await self._publisher.run(until_empty=self._until_empty)


def _without_secrets(url: str) -> str:
    """A URL without what comes before an @ and after a question mark."""
    scheme, slashes, rest = url.partition("://")
    place = rest.rpartition("@")[2] if slashes else ""
    return f"{scheme}{slashes}{place}".partition("?")[0]
