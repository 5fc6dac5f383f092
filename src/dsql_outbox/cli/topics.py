"""The command `topics`: list, pause or resume topics."""

from collections.abc import Awaitable, Callable
from typing import Final

import click
import msgspec

from dsql_outbox.observability.shown_text import duration
from dsql_outbox.operations.attention import refusal_reason
from dsql_outbox.operations.status import StatusReader
from dsql_outbox.operations.topic_pauses import PausedTopic, Topics
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.schema.refused_topics import By

from .database_options import with_database
from .exit_codes import FAILED
from .filters import json_option, reason_option, target_option
from .output import json_line, listed, one_line, say
from .signals import READ_ONLY
from .tool_call import called, collected, with_tool

_PERHAPS: Final = "dsql-outbox topics list shows whether it was done"

_target_option: Final = target_option(
    "The target whose messages they are; see dsql-outbox targets."
)
_HEADER: Final = ("topic", "paused by", "for", "reason")


class RefusedBy(msgspec.Struct, frozen=True, rename="camel"):
    """A topic that the publisher `refused_by` has paused by itself."""

    topic: str
    refused_by: str
    by: By | None
    seconds: float | None


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
    found: list[PausedTopic | RefusedBy] = [
        *called(Topics(database, target), lambda tool: collected(tool.list()))
    ]
    found += [
        RefusedBy(topic.topic, seen.owner, topic.by, topic.seconds)
        for seen in called(StatusReader(database), StatusReader.read_publishers)
        if seen.alive and (seen.target or DEFAULT_TARGET) == target
        for topic in seen.paused
    ]
    listed(found, _HEADER, _cells, as_json=as_json, none="no paused topics")


def _cells(topic: PausedTopic | RefusedBy) -> tuple[str, ...]:
    if isinstance(topic, PausedTopic):
        since = duration(topic.paused_seconds)
        return topic.topic, topic.paused_by, since, one_line(topic.reason)
    since = "-" if topic.seconds is None else duration(topic.seconds)
    return topic.topic, topic.refused_by, since, refusal_reason(topic.by)


def _verb(function: Callable[..., Awaitable[None]]) -> click.Command:
    """Make the command `pause` or `resume`."""
    command = with_tool(Topics, _PERHAPS, duty="operator", made_of=("target",))(function)
    for add in (json_option, reason_option, _target_option, click.argument("topic")):
        command = add(command)
    return topics.command()(command)


@_verb
async def pause(tool: Topics, *, topic: str, reason: str, as_json: bool) -> None:
    """Pause a topic: publishers stop sending its messages within ten seconds.

    The messages wait in the outbox, and so do later messages of their subjects. For a
    topic that is paused already, this replaces the reason.
    """
    await tool.pause(topic, reason)
    _tell(topic, is_paused=True, as_json=as_json)


@_verb
async def resume(tool: Topics, *, topic: str, reason: str, as_json: bool) -> None:
    """Resume a topic: publishers send its messages again within ten seconds.

    The exit code is 1 if no operator has paused it.
    """
    if not await tool.resume(topic, reason):
        say(f"{topic}: no operator has paused it", err=True)
        raise click.exceptions.Exit(FAILED)
    _tell(topic, is_paused=False, as_json=as_json)


def _tell(topic: str, *, is_paused: bool, as_json: bool) -> None:
    if as_json:
        json_line({"topic": topic, "paused": is_paused})
    else:
        say(f"{topic}  {'paused' if is_paused else 'resumed'}")
