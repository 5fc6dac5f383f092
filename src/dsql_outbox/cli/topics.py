"""The command `topics`: list, pause or resume topics."""

from collections.abc import Iterable, Iterator
from contextlib import aclosing
from typing import Final

import anyio
import click

from dsql_outbox.observability.shown_text import duration
from dsql_outbox.operations.attention import refusal_reason
from dsql_outbox.operations.status import Seen, StatusReader
from dsql_outbox.operations.topic_pauses import PausedTopic, Topics
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.schema.refused_topics import RefusedTopic

from .database_options import with_database
from .exit_codes import FAILED
from .filters import json_option, reason_option
from .output import aligned, json_line, one_line, say
from .signals import READ_ONLY
from .tool_call import called

_PERHAPS: Final = "dsql-outbox topics list shows whether it was done"

_target_option: Final = click.option(
    "--target",
    default=DEFAULT_TARGET,
    metavar="NAME",
    help="The target whose messages they are; see dsql-outbox targets.",
)


@click.group()
def topics() -> None:
    """List, pause or resume topics.

    Messages of a paused topic wait in the outbox. A publisher also pauses a topic by
    itself while the broker accepts no messages there, or its map fails for all of them.
    """


@topics.command("list")
@_target_option
@json_option
@with_database(READ_ONLY, duty="reader")
def list_(*, target: str, as_json: bool, database: Database) -> None:
    """List the topics that an operator has paused, then those that publishers have."""
    anyio.run(_list, database, target, as_json)


async def _list(database: Database, target: str, as_json: bool) -> None:
    lines: list[tuple[str, ...]] = [("topic", "paused by", "for", "reason")]
    async with Topics(database, target) as tool, aclosing(tool.list()) as found:
        async for topic in found:
            json_line(topic) if as_json else lines.append(_cells(topic))
    async with StatusReader(database) as reader:
        for refused, owner in _refused(await reader.read_publishers(), target):
            if as_json:
                json_line(
                    {
                        "topic": refused.topic,
                        "refusedBy": owner,
                        "by": refused.by,
                        "seconds": refused.seconds,
                    }
                )
            else:
                since = "-" if refused.seconds is None else duration(refused.seconds)
                lines.append((refused.topic, owner, since, refusal_reason(refused)))
    if not as_json:
        aligned(lines) if len(lines) > 1 else say("no paused topics")


def _refused(publishers: Iterable[Seen], target: str) -> Iterator[tuple[RefusedTopic, str]]:
    """The topics that the living publishers of a target have paused by themselves, with each."""
    for seen in publishers:
        if seen.alive and (seen.target or DEFAULT_TARGET) == target:
            for topic in seen.paused:
                yield topic, seen.owner


def _cells(topic: PausedTopic) -> tuple[str, ...]:
    return topic.topic, topic.paused_by, duration(topic.paused_seconds), one_line(topic.reason)


@topics.command()
@click.argument("topic")
@_target_option
@reason_option
@json_option
@with_database(_PERHAPS, duty="operator")
def pause(*, topic: str, target: str, reason: str, as_json: bool, database: Database) -> None:
    """Pause a topic: publishers stop sending its messages within ten seconds.

    The messages wait in the outbox, and so do later messages of their subjects. For a
    topic that is paused already, this replaces the reason.
    """
    called(Topics(database, target), lambda tool: tool.pause(topic, reason))
    _tell(topic, is_paused=True, as_json=as_json)


@topics.command()
@click.argument("topic")
@_target_option
@reason_option
@json_option
@with_database(_PERHAPS, duty="operator")
def resume(*, topic: str, target: str, reason: str, as_json: bool, database: Database) -> None:
    """Resume a topic: publishers send its messages again within ten seconds.

    The exit code is 1 if no operator has paused it.
    """
    if not called(Topics(database, target), lambda tool: tool.resume(topic, reason)):
        say(f"{topic}: no operator has paused it", err=True)
        raise click.exceptions.Exit(FAILED)
    _tell(topic, is_paused=False, as_json=as_json)


def _tell(topic: str, *, is_paused: bool, as_json: bool) -> None:
    if as_json:
        json_line({"topic": topic, "paused": is_paused})
    else:
        say(f"{topic}  {'paused' if is_paused else 'resumed'}")
