"""What needs an operator, as sentences: the same ones on every surface. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from dsql_outbox.observability.shown_text import counted, duration
from dsql_outbox.outbox.settings import DEFAULT_TARGET

from .operator_commands import Commands
from .selection import Selection
from .status import Bounded, Seen, Status, TargetStatus

_BLOCKED: Final = Selection(blocked=True)
_DEAD: Final = Selection(state="dead")
_NAMED: Final = 3
_LATE: Final = 60.0
"""Seconds that the oldest message may wait although nothing else is wrong."""


class Attention(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What needs attention: a sentence or several, and the command that helps or tells more.

    `error` is that of the message with the most attempts. `which` are the messages meant.
    """

    text: str
    command: str | None = None
    error: str | None = None
    which: Selection | None = None


class _Queue(msgspec.Struct, frozen=True):
    """The waiting messages of a target; `of` is empty where there is no other than `default`."""

    name: str
    of: str
    waiting: Bounded
    oldest_seconds: float | None
    is_model: bool = False

    @property
    def backlog(self) -> str:
        """How many messages wait, and for how long."""
        if self.oldest_seconds is None:
            return "no message waits"
        verb = "waits" if self.waiting.count == 1 and not self.waiting.more else "wait"
        number = _messages(self.waiting)
        return f"{number} {verb}, the oldest for {duration(self.oldest_seconds)}"


def attention(status: Status) -> tuple[Attention, ...]:
    """What needs attention, the most urgent first; empty if nothing does."""
    commands = Commands(status.schema)
    queues = _queues(status)
    found = [
        *(each for queue in queues for each in _unattended(status, queue, commands)),
        *_stranded(status, commands),
        *_refusing(status, commands),
        *_blocked(status, commands),
        *_paused(status, commands),
        *_failing(status, commands),
    ]
    if not found:
        found += [each for queue in queues for each in _late(queue, commands)]
    return (*found, *_dead(status, commands))


def verdict(status: Status) -> Attention:
    """The first sentence about an outbox: what is most urgent, or that nothing is."""
    found = attention(status)
    if found:
        return found[0]
    alive = sum(each.relays for each in status.publishers)
    backlog = _Queue(DEFAULT_TARGET, "", status.waiting, status.oldest_seconds).backlog
    return Attention(f"Nothing needs attention: {counted(alive, 'publisher')}, {backlog}.")


def _queues(status: Status) -> list[_Queue]:
    """The targets that are to be relayed now."""
    if not status.targets:
        return [_Queue(DEFAULT_TARGET, "", status.waiting, status.oldest_seconds)]
    return [
        _queue(status, each)
        for each in status.targets
        if each.state == "running" and each.paused is None
    ]


def _queue(status: Status, target: TargetStatus) -> _Queue:
    return _Queue(
        target.name,
        f" of target {target.name}" if len(status.targets) > 1 else "",
        target.waiting,
        target.oldest_seconds,
        target.kind == "model",
    )


def _unattended(status: Status, queue: _Queue, commands: Commands) -> Iterator[Attention]:
    """A target that no publisher relays."""
    own = publishers_of(status.publishers, queue.name)
    missing = unattended_text(own, queue.of)
    if missing is None:
        return
    if any(each.alive for each in own):
        yield Attention(f"{missing}: {queue.backlog}. The log of the publisher has the reason.")
        return
    seen = f" The last one was seen {duration(own[0].seen_seconds)} ago." if own else ""
    command = None if queue.is_model else commands.publish(queue.name if queue.of else None)
    model = " Start the program that applies its messages." if queue.is_model else ""
    yield Attention(f"{missing}: {queue.backlog}.{seen}{model}", command)


def publishers_of(publishers: Sequence[Seen], target: str) -> list[Seen]:
    """Those of a target, the one that was seen last first."""
    return [each for each in publishers if (each.target or DEFAULT_TARGET) == target]


def unattended_text(own: Sequence[Seen], of: str) -> str | None:
    """Why the publishers of a target relay nothing, without a full stop; None if one relays."""
    alive = [each for each in own if each.alive]
    if any(each.relays for each in alive):
        return None
    if not alive:
        return f"No publisher{of} is alive"
    since = max(each.waiting_seconds or 0.0 for each in alive)
    return f"No publisher{of} has reached its broker for {duration(since)}"


def _stranded(status: Status, commands: Commands) -> Iterator[Attention]:
    for each in status.stranded:
        place = "" if each.position is None else f" from position {each.position}"
        yield Attention(
            f"Shard {status.shard_name(each.shard)}{place} is stranded: {each.reason}.",
            commands.apply(),
        )


def _refusing(status: Status, commands: Commands) -> Iterator[Attention]:
    """Topics that publishers have paused by themselves."""
    for target, names, more in _refused(status.publishers):
        of = f" of target {target}" if target else ""
        yield Attention(
            f"{refusing_text(names, more, of=of)} The log of the publisher has the reason.",
            commands.topics(target),
        )


def refusing_text(names: Sequence[str], more: int, *, of: str = "", or_paused: bool = False) -> str:
    """The sentence about topics that take no messages; `more` are those without a name.

    With `or_paused`, an operator may have paused some of them.
    """
    number = len(names) + more
    others = number - len(names[:_NAMED])
    named = ", ".join(names[:_NAMED]) + (f" and {others:,} more" if others else "")
    causes = "the map fails, or an operator paused it" if or_paused else "or the map fails for them"
    return (
        f"{'Topic' if number == 1 else 'Topics'} {named}{of}: the broker takes no messages there, "
        f"{causes}. The messages wait."
    )


def _refused(publishers: tuple[Seen, ...]) -> Iterator[tuple[str | None, list[str], int]]:
    """The paused topics of living publishers by target, and the number of those without a name."""
    targets = dict.fromkeys(each.target or None for each in publishers if each.alive)
    for target in targets:
        own = [each for each in publishers if each.alive and (each.target or None) == target]
        names = list(dict.fromkeys(name for each in own for name in each.paused))
        if names:
            yield target, names, max(each.paused_more for each in own)


def _blocked(status: Status, commands: Commands) -> Iterator[Attention]:
    if number := status.failures.blocked:
        verb = (
            "is blocked and holds back its subject"
            if number == 1
            else "are blocked and hold back their subjects"
        )
        worst = next((each for each in status.failures.worst if each.retry_seconds is None), None)
        yield Attention(
            f"{counted(number, 'message')} {verb}, until an operator decides.",
            commands.messages("list", _BLOCKED),
            None if worst is None else worst.error,
            _BLOCKED,
        )


def _paused(status: Status, commands: Commands) -> Iterator[Attention]:
    """Targets and topics that an operator has paused."""
    for each in status.targets:
        if each.paused is not None:
            paused = _paused_text(each.paused_seconds or 0.0, each.paused_by or "", each.paused)
            missing = unattended_text(publishers_of(status.publishers, each.name), " of it")
            also = f" {missing}." if missing else ""
            yield Attention(
                f"Target {each.name} {paused} Meanwhile {_queue(status, each).backlog}.{also}",
                commands.resume_target(each.name),
            )
    for topic in status.paused_topics:
        of = f" of target {topic.target}" if topic.target else ""
        paused = _paused_text(topic.paused_seconds, topic.paused_by, topic.reason)
        yield Attention(
            f"Topic {topic.topic}{of} {paused}", commands.resume(topic.topic, topic.target)
        )


def _paused_text(seconds: float, by: str, reason: str) -> str:
    why = f": {reason}" if reason else ""
    return f"has been paused for {duration(seconds)}, by {by}{why}."


def _failing(status: Status, commands: Commands) -> Iterator[Attention]:
    failures = status.failures
    number = failures.count - failures.blocked
    if number <= 0 or not failures.worst:
        return
    worst = next((each for each in failures.worst if each.retry_seconds is not None), None)
    if worst is None:
        return
    found = Bounded(number, failures.more)
    verb = "has failed and is" if number == 1 and not failures.more else "have failed and are"
    tries = counted(worst.attempts, "attempt")
    yield Attention(
        f"{_messages(found)} {verb} tried again; the most often tried one has had {tries}.",
        commands.event(worst.event_id),
        worst.error,
    )


def _late(queue: _Queue, commands: Commands) -> Iterator[Attention]:
    """A backlog without another reason."""
    if queue.oldest_seconds is not None and queue.oldest_seconds > _LATE:
        yield Attention(
            f"The publishers{queue.of} are behind: {queue.backlog}. One subject has many "
            "messages, or database or broker are slow.",
            commands.watch(),
        )


def _dead(status: Status, commands: Commands) -> Iterator[Attention]:
    found = status.dead_letters
    if found.count:
        is_one = found == Bounded(1, more=False)
        letters, it = ("is a dead letter", "it") if is_one else ("are dead letters", "the first")
        ago = duration(status.dead_seconds or 0.0)
        yield Attention(
            f"{_messages(found)} {letters}: the publisher gave up on {it} {ago} ago.",
            commands.messages("list", _DEAD),
            which=_DEAD,
        )


def _messages(number: Bounded) -> str:
    return f"{number.count:,}+ messages" if number.more else counted(number.count, "message")
