"""Where an event is: what is left of its messages for each target, in sentences."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.observability.shown_text import counted
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.schema.refused_topics import RefusedTopic
from dsql_outbox.schema.session import Session
from dsql_outbox.schema.target_rows import TargetKind

from .attention import publishers_of, refusing_text, remedy_of, unattended_text
from .obstacles import Obstacles
from .operations import last_operation
from .operator_commands import Commands
from .selection import Selection
from .status import Seen, find_obstacles, read_publishers
from .targets import Target, read_targets
from .topic_pauses import PausedTopic, find_pause
from .undelivered import UndeliveredMessage, message_pages

FIND_TRACE: Final = "Find its trace"
_STEPS: Final = 1_000
_SKIPPED: Final = "skipped if its publisher has a map"
_AGAIN: Final = "A replay sends it again, perhaps a second time."
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


_Said = tuple[str] | tuple[str, tuple[str, str]]
"""A sentence, maybe with what an operator may do: the effect and the command."""


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

    def without(self, effect: str) -> "Finding":
        """The same finding without the command that has this effect."""
        commands = tuple(each for each in self.commands if each[0] != effect)
        return msgspec.structs.replace(self, commands=commands)


class StoredEvent(NamedTuple):
    """What a finding needs to know of a stored event."""

    subject_type: str
    saved_date: datetime


class Predecessor(NamedTuple):
    """The first message of a subject that is still in the outbox.

    `messages` is the number of messages from it to the one that waits. `more` says that
    the search ended before the first message.
    """

    first: UndeliveredMessage
    messages: int
    more: bool


async def read_findings(
    session: Session,
    event_id: UUID,
    *,
    stored: StoredEvent | None,
    links_trace: bool = False,
) -> tuple[Finding, ...]:
    """The findings of an event; `stored` is None if the event is not stored.

    With `links_trace`, the caller shows where its trace is, so that no command finds it.
    """
    messages = await _found(session, event_id)
    if stored is None and not messages:
        return ()
    targets = await read_targets(session)
    publishers = await read_publishers(session)
    names = list({each.target or DEFAULT_TARGET for each in messages if each.state != "dead"})
    report = _Report(
        Commands(session.schema),
        {each.name: each for each in targets},
        publishers,
        await find_obstacles(session, publishers, names),
        {},
        await last_operation(session, "messages drop"),
    )
    findings: list[Finding] = []
    for each in messages:
        if each.state == "dead":
            findings.append(report.of_dead(each))
            continue
        before = await predecessor(session, each) if each.behind else None
        for paused in (each, *(() if before is None else (before.first,))):
            if paused.paused:
                await report.read_pause(session, paused)
        findings.append(report.of_waiting(each, before))
    kept = {each.target or DEFAULT_TARGET for each in messages}
    if stored is not None:
        added = {
            name: await last_operation(session, "targets add", name)
            for name in report.may_have_come_later(kept)
        }
        found = report.of_others(event_id, stored, kept, added)
        findings += [each.without(FIND_TRACE) if links_trace else each for each in found]
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
    """Makes findings."""

    commands: Commands
    targets: dict[str, Target]
    publishers: Sequence[Seen]
    obstacles: Obstacles
    pauses: dict[tuple[str, str], PausedTopic]
    dropped_at: datetime | None
    """When an operator last dropped messages."""

    async def read_pause(self, session: Session, message: UndeliveredMessage) -> None:
        """Read who has paused the topic of a message, if it is the topic that is paused."""
        key = message.target or DEFAULT_TARGET, message.topic
        if key not in self.pauses and (found := await find_pause(session, *key)) is not None:
            self.pauses[key] = found

    def of_dead(self, message: UndeliveredMessage) -> Finding:
        """The finding of a dead message."""
        at = shown_time(message.died_at or message.created_at)
        return Finding(
            f"{_name(message)} is a dead letter since {at}: the publisher gave up on it after "
            f"{counted(message.attempts, 'attempt')}.",
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
        place = f"{_name(message)} waits in shard {message.shard} at position {message.position}."
        texts, commands = [place, *self._trouble(message)], [*self._remedies(message, "it")]
        pauses = [*self._pause(message, "It", "Resume its topic")]
        error, first = message.error, None
        if before is not None:
            first = before.first.event_id
            least = "at least " if before.more else ""
            number = counted(before.messages, "message")
            texts.append(f"It is behind {least}{number} of its subject; the first is of {first}.")
            texts += self._trouble(before.first, "That one")
            error = error or before.first.error
            commands += self._remedies(before.first, "the first one")
            resume = "Resume the topic of the first one"
            pauses += self._pause(before.first, "The first one", resume)
        elif message.behind:
            texts.append("It is behind another message of its subject.")
        # A pause is on purpose, so it comes behind the faults.
        for text, *remedy in (*self._target_trouble(message), *pauses):
            texts.append(text)
            commands += remedy
        if texts == [place]:
            texts.append("It is the first message of its subject: a publisher sends it next.")
        trace_id = _trace_id(message)
        once: dict[str, str] = {}
        for effect, command in commands:
            once.setdefault(command, effect)
        named = tuple((effect, command) for command, effect in once.items())
        return Finding(" ".join(texts), message.target, error, first, named, trace_id)

    def may_have_come_later(self, kept: Collection[str]) -> list[str]:
        """The targets without a message of the event that may be younger, and were not filled."""
        return [
            each.name
            for each in self.targets.values()
            if each.name not in {*kept, DEFAULT_TARGET}
            and each.state == "running"
            and each.fill is None
        ]

    def of_others(
        self,
        event_id: UUID,
        stored: StoredEvent,
        kept: Collection[str],
        added: Mapping[str, datetime | None],
    ) -> Iterator[Finding]:
        """The findings of the targets that have no message of a stored event.

        `added` is when some of them were added, or None if that is unknown.
        """
        for target in self.targets.values():
            if target.name in kept or target.state == "dropped":
                continue
            name = None if len(self.targets) == 1 else target.name
            if target.types is not None and stored.subject_type not in target.types:
                text = f"Target {target.name} takes no events of {stored.subject_type}."
                yield Finding(text, name)
                continue
            again = self.commands.replay(event_id, name)
            commands = [
                (FIND_TRACE, self.commands.trace(event_id)),
                ("Send it again", again),
            ]
            left = f"No copy of it is waiting{'' if name is None else f' for target {name}'}."
            added_at = added.get(target.name)
            if target.state == "filling":
                text = f"Target {name} is being filled: it may still get the event."
                del commands[0]
            elif added_at is not None and added_at > stored.saved_date:
                at = shown_time(added_at)
                text = f"Target {name} was added at {at}, after the event was stored: it got none."
                del commands[0]
            elif target.name in added and added_at is None:
                text = f"{left} If the target was added after the event, it got none; else it "
                text += self._gone(stored, target.kind)
            elif self.dropped_at is None or self.dropped_at < stored.saved_date:
                text = f"It {self._gone(stored, target.kind, name)}"
            else:
                text = f"{left} So it {self._gone(stored, target.kind)}"
            yield Finding(text, name, commands=tuple(commands))

    def _gone(self, stored: StoredEvent, kind: TargetKind, target: str | None = None) -> str:
        """How the message of an event has left the outbox; only a model skips nothing."""
        done, by, skipped = ("applied", "by", "") if kind == "model" else ("sent", "to", _SKIPPED)
        of = "" if target is None else f" {by} target {target}"
        if self.dropped_at is None or self.dropped_at < stored.saved_date:
            which = f", or {skipped}; its trace says which" if skipped else ""
            none = "No drop by an operator is recorded since it was stored."
            return f"was {done}{of}{which}. {none} {_AGAIN}"
        dropped = f"dropped by an operator, as messages were at {shown_time(self.dropped_at)}"
        return (
            f"was {done}{skipped and f', {skipped},'} or {dropped}; its trace says which. {_AGAIN}"
        )

    def _trouble(self, message: UndeliveredMessage, it: str = "It") -> Iterator[str]:
        """What keeps a message in the outbox, unless it is another one or its target."""
        times = counted(message.attempts, "time")
        if message.blocked:
            yield f"{it} failed {times} and is blocked: it waits for an operator."
        elif message.state == "failing" and message.retry_at is not None:
            again = shown_time(message.retry_at)
            yield f"{it} failed {times}. The next attempt is at {again}."
        if (refusal := self._refusal(message)) is not None:
            yield refusing_text([refusal], 0)

    def _pause(self, message: UndeliveredMessage, it: str, resume: str) -> Iterator[_Said]:
        """The pause of its topic by an operator, and the command that ends it."""
        if message.paused and self._refusal(message) is None:
            text = f"{it} is paused, with topic {message.topic}{self._since(message)}."
            yield text, (resume, self.commands.resume(message.topic, message.target))

    def _target_trouble(self, message: UndeliveredMessage) -> Iterator[_Said]:
        """What keeps all messages of its target: sentences, maybe with what an operator may do."""
        name = message.target or DEFAULT_TARGET
        target = self.targets.get(name)
        if target is not None and target.state != "running":
            yield (f"Target {name} is {target.state}: its messages are sent when it runs.",)
            return
        yield from self._unattended(message, name, target)

    def _unattended(
        self, message: UndeliveredMessage, name: str, target: Target | None
    ) -> Iterator[_Said]:
        """That no publisher relays its target, if so."""
        own = publishers_of(self.publishers, name)
        of = "" if message.target is None else f" of target {name}"
        missing = unattended_text(own, of, self.obstacles)
        if missing is None:
            return
        if any(each.alive for each in own):
            yield (f"{missing}.",)
            return
        is_model = target is not None and target.kind == "model"
        remedy = remedy_of(self.obstacles, message.target, self.commands, is_model=is_model)
        if remedy.command is None:
            yield (f"{missing}. {remedy.advice}",)
        else:
            yield f"{missing}.", (remedy.effect, remedy.command)

    def _since(self, message: UndeliveredMessage) -> str:
        """Since when and by whom the topic of a message is paused, after a comma."""
        found = self.pauses.get((message.target or DEFAULT_TARGET, message.topic))
        if found is None:
            return ""
        why = f": {found.reason}" if found.reason else ""
        return f", since {shown_time(found.paused_at)}, by {found.paused_by}{why}"

    def _refusal(self, message: UndeliveredMessage) -> RefusedTopic | None:
        """That a publisher of its target has paused its topic by itself; the longest."""
        own = publishers_of(self.publishers, message.target or DEFAULT_TARGET)
        found = (
            topic
            for each in own
            for topic in (each.paused if each.alive else ())
            if topic.topic == message.topic
        )
        return max(found, key=lambda each: each.seconds or 0.0, default=None)

    def _remedies(self, message: UndeliveredMessage, it: str) -> Iterator[tuple[str, str]]:
        """What an operator may do about a failing or refused message."""
        if message.state == "failing":
            yield f"Send {it} now", self.commands.message("retry", message)
            yield f"Give up on {it}", self.commands.message("drop", message)
        if self._refusal(message):
            yield "List the topics that take no messages", self.commands.topics(message.target)


def shown_time(at: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _name(message: UndeliveredMessage) -> str:
    what = f"Replay {message.replay}" if message.replay else "The message"
    return what if message.target is None else f"{what} for target {message.target}"


def _trace_id(message: UndeliveredMessage) -> str | None:
    """The id in the header ``traceparent`` (W3C Trace Context), if it has one."""
    found = _TRACEPARENT.fullmatch(message.headers.get("traceparent", ""))
    return found and found[1]
