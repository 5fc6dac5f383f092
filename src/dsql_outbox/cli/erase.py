"""The command `erase`: erase what is stored of an entity."""

from typing import Any

import click

from dsql_outbox.operations.life.erase import EraseRun
from dsql_outbox.operations.life.erasures import Erasures
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.writer.settings import WriterSettings

from .filters import (
    confirm,
    dry_run_option,
    json_option,
    rate_option,
    source_option,
    yes_option,
)
from .job import drive
from .output import counts, say
from .tool_call import with_tool

_NOT_OURS = "not erased: copies in your brokers, consumers, read models, backups and logs"
_KEEPS_ID = "the id stays in every key, so use no personal id (docs/events.md)"


def _tool(database: Database, source: str, topic: str) -> Erasures:
    return Erasures(database, WriterSettings(source=source, topic=topic))


@click.command(
    short_help="Erase what is stored of an entity.",
    epilog="""\b
Examples:
  dsql-outbox erase Person/4711 --reason "request 77" --dry-run
  dsql-outbox erase Person/4711 --reason "request 77"

\b
Exit codes:
  0    erased, or there was nothing to erase
  2    wrong usage, or an unknown entity
  69   the database cannot be reached
  75   another job runs, or a target opens or fills: try again later
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM); run it again to continue""",
)
@click.argument("entity", metavar="TYPE/ID")
@click.option(
    "--reason",
    required=True,
    metavar="TEXT",
    help="Free text, recorded with the erasure. It stays, so name no person in it.",
)
@source_option('The CloudEvents source of the event "TYPE Erased": that of the writers\' settings.')
@click.option(
    "--topic",
    default=WriterSettings.topic,
    metavar="TEMPLATE",
    show_default=True,
    help='The topic of the event "TYPE Erased".',
)
@rate_option
@dry_run_option
@json_option
@yes_option
@with_tool(
    _tool,
    duty="keeper",
    made_of=("source", "topic"),
    logs=True,
)
async def erase(
    tool: Erasures, *, entity: str, dry_run: bool, as_json: bool, yes: bool, **asked: Any
) -> None:
    """Erase what the stored events say about an entity, for good.

    The command first writes the event "TYPE Erased", which every target gets. Then it erases
    the entity's part from its state, from each older event, and from waiting messages, dead
    letters and error texts. Versions, positions and types stay. An event of
    several entities keeps the parts of the others. Members that belong to no entity are
    erased with the first one.

    You may run it beside writers and publishers. It erases neither events that are written
    after it began, nor messages that a broker has, or gets meanwhile. A second run finds
    nothing.
    """
    told = tool.erase(entity, dry_run=dry_run, **asked)
    if not dry_run:
        confirm(f"This erases all content of {entity}, for good. Continue?", yes=yes)
    await drive(told, lambda: _line(told, dry_run=dry_run), as_json=as_json)
    if not as_json and told.progress.version is not None:
        say(_KEEPS_ID)
        say(_NOT_OURS)


def _line(run: EraseRun, *, dry_run: bool) -> str:
    done = run.progress
    if done.version is None and run.again is None and not dry_run:
        return "nothing to erase"
    parts = counts({"messages": done.messages, "dead letters": done.dead_letters})
    would = "would change " if dry_run else ""
    return ", ".join([f"{would}events: {done.events:,} of {done.total:,}", *parts])
