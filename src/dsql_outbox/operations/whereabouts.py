"""Where an event is: what is left of its messages for each target, in sentences."""

import re
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.schema.session import Session

from .operator_commands import Commands
from .selection import Selection
from .status import read_publishers
from .targets import Target, read_targets
from .undelivered import UndeliveredMessage, message_pages

_STEPS: Final = 1_000
_GONE: Final = (
    "A publisher delivered it, its map skipped it, or an operator dropped it. The outbox does not "
    "keep which, nor when; the trace of the event does."
)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Finding(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where a message of an event is, in sentences.

    `target` is None for the default target. `error` is the last one of the message, or of
    `first`: the event whose message must go before it. `commands` are what an operator may run
    now, each with its effect. `trace_id` is that of the write, while its message is kept.
    """

    text: str
    target: str | None = None
    error: str | None = None
    first: UUID | None = None
    commands: tuple[tuple[str, str], ...] = ()
    trace_id: str | None = None


class Predecessor(NamedTuple):
    """The first message of a subject that is still in the outbox.

    `messages` is the number of messages from it to the one that waits. `more` says that
    the search ended before the first message.
    """

    first: UndeliveredMessage
    messages: int
    more: bool


async def read_findings(
    session: Session, event_id: UUID, *, subject_type: str | None
) -> tuple[Finding, ...]:
    """The findings of an event; `subject_type` is None if the event is not stored."""
    messages = await _found(session, event_id)
    if subject_type is None and not messages:
        return ()
    targets = await read_targets(session)
    alive = {
        each.target or DEFAULT_TARGET for each in await read_publishers(session) if each.relays
    }
    report = _Report(Commands(session.schema), {each.name: each for each in targets}, alive)
    findings = [
        report.of_dead(each)
        if each.state == "dead"
        else report.of_waiting(each, await predecessor(session, each) if each.behind else None)
        for each in messages
    ]
    kept = {each.target or DEFAULT_TARGET for each in messages}
    if subject_type is not None:
        findings += report.of_others(event_id, subject_type, kept)
    order = [None, *report.targets]
    return tuple(sorted(findings, key=lambda each: order.index(each.target)))


async def predecessor(session: Session, message: UndeliveredMessage) -> Predecessor | None:
    """The message for which a waiting message waits; None if it waits for no other.

    This looks at most 1,000 messages back.
    """
    for step in await session.fetch("waiting_first", _Step, message.row_key, steps=_STEPS):
        for each in await _found(session, step.event_id):
            if each.position == step.position and each.state != "dead":
                return Predecessor(each, step.step, step.step == _STEPS)
    return None


async def _found(session: Session, event_id: UUID) -> Sequence[UndeliveredMessage]:
    """The messages of an event that were not delivered; the dead ones come last."""
    async with aclosing(message_pages(session, Selection(ids=(event_id,)))) as pages:
        return [each.message async for page in pages for each in page]


class _Step(NamedTuple):
    """A row of ``waiting_first``."""

    step: int
    event_id: UUID
    position: int


class _Report(NamedTuple):
    """Makes findings; `alive` are the targets with a publisher that reaches its broker. Pure."""

    commands: Commands
    targets: dict[str, Target]
    alive: set[str]

    def of_dead(self, message: UndeliveredMessage) -> Finding:
        """The finding of a dead message."""
        at = shown_time(message.died_at or message.created_at)
        return Finding(
            f"{_name(message)} is a dead letter since {at}: the publisher gave up on it after "
            f"{_times(message.attempts, 'attempt')}.",
            message.target,
            message.error,
            commands=(
                ("Put it back into the outbox", self.commands.message("retry", message)),
                ("Delete it for good", self.commands.message("drop", message)),
            ),
            trace_id=_trace_id(message),
        )

    def of_waiting(self, message: UndeliveredMessage, before: Predecessor | None) -> Finding:
        """The finding of a message in the outbox."""
        place = (
            f"{_name(message)} waits in shard {message.shard_name} at position {message.position}."
        )
        texts, commands = [place, *_trouble(message)], [*self._remedies(message, "it", "its topic")]
        error, first = message.error, None
        if before is not None:
            first = before.first.event_id
            number = f"at least {before.messages:,}" if before.more else f"{before.messages:,}"
            noun = "message" if before.messages == 1 else "messages"
            texts.append(f"It is behind {number} {noun} of its subject; the first is of {first}.")
            texts += _trouble(before.first, "That one")
            error = error or before.first.error
            commands += self._remedies(before.first, "the first one", "the topic of the first one")
        elif message.behind:
            texts.append("It is behind another message of its subject.")
        is_next = before is None and not message.behind and message.state == "waiting"
        texts += self._relayed(message, is_next=is_next and not message.paused)
        trace_id = _trace_id(message)
        return Finding(" ".join(texts), message.target, error, first, tuple(commands), trace_id)

    def of_others(self, event_id: UUID, subject_type: str, kept: set[str]) -> Iterator[Finding]:
        """The findings of the targets that have no message of a stored event."""
        for target in self.targets.values():
            if target.name in kept or target.state == "dropped":
                continue
            name = None if len(self.targets) == 1 else target.name
            if target.types is not None and subject_type not in target.types:
                text = f"Target {target.name} takes no events of {subject_type}."
                yield Finding(text, name)
                continue
            where = "in the outbox" if name is None else f"for target {name}"
            texts = [f"No message of it is left {where}. {_GONE}"]
            if target.state == "filling":
                texts = [f"Target {name} is being filled: it may still get the event."]
            elif target.name != DEFAULT_TARGET and target.fill is None:
                texts.append("The target got no events that were stored before it was added.")
            again = self.commands.replay(event_id, name)
            yield Finding(" ".join(texts), name, commands=(("Send it again", again),))

    def _relayed(self, message: UndeliveredMessage, *, is_next: bool) -> Iterator[str]:
        """Whether a publisher sends the message."""
        name = message.target or DEFAULT_TARGET
        target = self.targets.get(name)
        if target is not None and target.state != "running":
            yield f"Target {name} is {target.state}: its messages are sent when it runs."
        elif name not in self.alive:
            of = "" if message.target is None else f" of target {name}"
            yield f"No publisher{of} is alive and reaches its broker."
        elif is_next:
            yield "It is the first message of its subject: a publisher sends it next."

    def _remedies(
        self, message: UndeliveredMessage, it: str, topic: str
    ) -> Iterator[tuple[str, str]]:
        """What an operator may do about a failing or paused message."""
        if message.state == "failing":
            yield f"Send {it} now", self.commands.message("retry", message)
            yield f"Give up on {it}", self.commands.message("drop", message)
        if message.paused:
            target = self.targets.get(message.target or DEFAULT_TARGET)
            if target is not None and target.paused_at is not None:
                yield "Resume its target", self.commands.resume_target(target.name)
            else:
                yield f"Resume {topic}", self.commands.resume(message.topic, message.target)


def shown_time(at: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _name(message: UndeliveredMessage) -> str:
    what = f"Replay {message.replay}" if message.replay else "The message"
    return what if message.target is None else f"{what} for target {message.target}"


def _trouble(message: UndeliveredMessage, it: str = "It") -> Iterator[str]:
    """What keeps a message in the outbox, unless it is another one."""
    if message.blocked:
        yield f"{it} failed {_times(message.attempts)} and is blocked: it waits for an operator."
    elif message.state == "failing" and message.retry_at is not None:
        again = shown_time(message.retry_at)
        yield f"{it} failed {_times(message.attempts)}. The next attempt is at {again}."
    if message.paused:
        yield f"{it} is paused, by its topic {message.topic} or its target."


def _trace_id(message: UndeliveredMessage) -> str | None:
    """The id in the header ``traceparent`` (W3C Trace Context), if it has one."""
    found = _TRACEPARENT.fullmatch(message.headers.get("traceparent", ""))
    return found and found[1]


def _times(number: int, noun: str = "time") -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
