"""What needs an operator, as sentences: the same ones on every surface. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from dsql_outbox.observability.shown_text import counted, duration
from dsql_outbox.outbox.settings import DEFAULT_TARGET, TARGET_SHARDS
from dsql_outbox.schema.refused_topics import By, RefusedTopic

from .obstacles import Obstacles
from .operator_commands import Commands
from .selection import Selection
from .status import LATE, SLOW, Bounded, Seen, Status, TargetStatus

_BLOCKED: Final = Selection(blocked=True)
_DEAD: Final = Selection(state="dead")
_NAMED: Final = 3
_SPLIT: Final = "docs/troubleshooting.md#a-subject-that-is-behind"
_REFUSED: Final[dict[By | None, str]] = {
    "broker": "the broker refuses it",
    "map": "the map fails for it",
    None: "the broker refuses it, or the map fails",
}
_CURE: Final[dict[By | None, str]] = {
    "broker": "Give the broker what the error names: no restart is needed.",
    "map": "Correct the map, and start the publisher again.",
    None: "",
}


class Attention(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What needs attention: a sentence or several, and the command that helps or tells more.

    `error` is that of the message with the most attempts, or of the first dead letter. `which` are
    the messages meant.
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
    first_shard: int = 0

    def has(self, shard: int) -> bool:
        """Whether a shard is one of this target's."""
        return shard // TARGET_SHARDS == self.first_shard // TARGET_SHARDS

    @property
    def waits(self) -> bool:
        """Whether a message waits."""
        return self.oldest_seconds is not None

    @property
    def backlog(self) -> str:
        """How many messages wait, and for how long."""
        if self.oldest_seconds is None:
            return "no message waits"
        verb = "waits" if self.waiting.count == 1 and not self.waiting.more else "wait"
        number = _messages(self.waiting)
        return f"{number} {verb}, the oldest for {duration(self.oldest_seconds)}"


def attention(status: Status) -> tuple[Attention, ...]:
    """What needs attention, the most urgent first; empty if nothing does.

    What an operator has paused comes last: it is on purpose, and may hide no fault.
    """
    commands = Commands(status.schema)
    queues = _queues(status)
    found = [
        *(each for queue in queues for each in _unattended(status, queue, commands)),
        *_stranded(status, commands),
        *_refusing(status, commands),
        *_blocked(status, commands),
        *_failing(status, commands),
    ]
    paused = [*_paused(status, commands, " ".join(each.text for each in found))]
    if not found and not paused:
        found += [each for queue in queues for each in _late(status, queue, commands)]
    return (*found, *_dead(status, commands), *paused)


def verdict(status: Status) -> Attention:
    """The first sentence about an outbox: what is most urgent, or that nothing is."""
    found = attention(status)
    if found:
        return found[0]
    alive = sum(each.relays for each in status.publishers)
    backlog = _whole(status).backlog
    return Attention(f"Nothing needs attention: {counted(alive, 'publisher')}, {backlog}.")


def _queues(status: Status) -> list[_Queue]:
    """The targets that are to be relayed now."""
    if not status.targets:
        return [_whole(status)]
    return [_queue(status, each) for each in status.targets if each.state == "running"]


def _whole(status: Status) -> _Queue:
    return _Queue(DEFAULT_TARGET, "", status.waiting, status.oldest_seconds)


def _queue(status: Status, target: TargetStatus) -> _Queue:
    return _Queue(
        target.name,
        f" of target {target.name}" if len(status.targets) > 1 else "",
        target.waiting,
        target.oldest_seconds,
        target.kind == "model",
        target.first_shard,
    )


def _unattended(status: Status, queue: _Queue, commands: Commands) -> Iterator[Attention]:
    """A target that no publisher relays."""
    own = publishers_of(status.publishers, queue.name)
    missing = unattended_text(own, queue.of, status.obstacles)
    if missing is None:
        return
    if any(each.alive for each in own):
        yield Attention(
            f"{missing}: {queue.backlog}. When it answers, they are sent. The log of publisher "
            f"{own[0].owner} names the broker and the error.",
            commands.watch(),
        )
        return
    end = " If one ran, it ended by itself, and the log of its service says why."
    if own:
        # One that ends in order removes its row.
        end = (
            f" The last one, {own[0].owner}, was seen {duration(own[0].seen_seconds)} ago and "
            "ended without leaving: it was killed, ran out of memory, or its host is gone. The "
            "log of its service says more."
        )
    if status.obstacles.read_only:
        end = ""  # the publishers wait, and cannot announce themselves
    waits = "." if status.obstacles.read_only and not queue.waits else f": {queue.backlog}."
    target = queue.name if queue.of else None
    remedy = remedy_of(status.obstacles, target, commands, is_model=queue.is_model)
    yield Attention(f"{missing}{waits}{end} {remedy.advice}", remedy.command)


class Remedy(NamedTuple):
    """What brings a publisher back: how, the command if there is one, and its effect in short."""

    advice: str
    effect: str = ""
    command: str | None = None


def remedy_of(
    obstacles: Obstacles, target: str | None, commands: Commands, *, is_model: bool
) -> Remedy:
    """What brings a publisher of a target back, of which none is alive; None: the default one."""
    if obstacles.read_only:
        advice = "Publishers go on by themselves when it accepts writes."
        return Remedy(advice, "Look why", commands.doctor())
    if obstacles.roles:
        return Remedy(
            "The owner of the tables grants it; then start the publisher again.",
            "As the owner of the tables, grant it",
            commands.grant_publisher(obstacles.roles[0].role),
        )
    if is_model:
        return Remedy("Start the program that applies its messages.")
    return Remedy(
        "Then start it as before: with the URL of its broker, and its --map if it had one.",
        "Start a publisher",
        commands.publish(target),
    )


def publishers_of(publishers: Sequence[Seen], target: str) -> list[Seen]:
    """Those of a target, the one that was seen last first."""
    return [each for each in publishers if (each.target or DEFAULT_TARGET) == target]


def unattended_text(own: Sequence[Seen], of: str, obstacles: Obstacles) -> str | None:
    """Why the publishers of a target relay nothing, without a full stop; None if one relays."""
    alive = [each for each in own if each.alive]
    if any(each.relays for each in alive):
        return None
    if not alive and obstacles.read_only:
        return "The database accepts no writes, so nothing is stored and nothing is relayed"
    if not alive and obstacles.roles:
        short = obstacles.roles[0]
        more = len(short.lacks) - _NAMED
        lacks = ", ".join(short.lacks[:_NAMED]) + (f" and {more} more rights" if more > 0 else "")
        return f"Role {short.role} lacks {lacks}, and no publisher{of} is alive"
    if not alive:
        return f"No publisher{of} is alive"
    since = max(each.waiting_seconds or 0.0 for each in alive)
    return f"No publisher{of} has reached its broker for {duration(since)}"


def _stranded(status: Status, commands: Commands) -> Iterator[Attention]:
    for each in status.stranded:
        target = status.target_of(each.shard)
        of = "" if target is None else f" of target {target}"
        place = "" if each.position is None else f" from position {each.position}"
        yield Attention(
            f"Shard {each.shard}{of}{place} is stranded: {each.reason}.",
            commands.apply(),
        )


def _refusing(status: Status, commands: Commands) -> Iterator[Attention]:
    """Topics that publishers have paused by themselves."""
    for target, topics, more in _refused(status.publishers):
        waits = _meanwhile(status, target or DEFAULT_TARGET)
        of = f" of target {target}" if target else ""
        cure = _CURE[topics[0].by]
        text = f"{refusing_text(topics, more, of=of)} {waits} The publisher's log has the error."
        yield Attention(f"{text} {cure}".rstrip(), commands.topics(target))


def refusal_reason(by: By | None) -> str:
    """Why a publisher has paused a topic by itself."""
    return _REFUSED[by]


def refusing_text(topics: Sequence[RefusedTopic], more: int, *, of: str = "") -> str:
    """The sentence about topics that take no messages for one reason.

    `more` are those without a name.
    """
    by, seconds = topics[0].by, max(each.seconds or 0.0 for each in topics)
    named = _topics_named([each.topic for each in topics], more) + of
    if by is None:
        return f"The broker takes no messages of {named}, or the map fails: other topics go on."
    what = "The broker has refused" if by == "broker" else "The map has failed for"
    since = "" if len(topics) + more == 1 else ", the first"
    return f"{what} {named}{since} for {duration(seconds)}: other topics go on."


def unsent_text(names: Sequence[str], more: int) -> str:
    """The sentence about topics of which some may be paused by an operator."""
    takes, it = ("takes", "it") if len(names) + more == 1 else ("take", "them")
    why = f"the broker refuses {it}, the map fails, or an operator paused {it}"
    return f"T{_topics_named(names, more)[1:]} {takes} no messages: {why}. Other topics go on."


def _topics_named(names: Sequence[str], more: int) -> str:
    number = len(names) + more
    others = number - len(names[:_NAMED])
    named = ", ".join(names[:_NAMED]) + (f" and {others:,} more" if others else "")
    return f"{'topic' if number == 1 else 'topics'} {named}"


def _refused(
    publishers: tuple[Seen, ...],
) -> Iterator[tuple[str | None, Sequence[RefusedTopic], int]]:
    """The paused topics of living publishers by target and reason, each with its longest time.

    The number of those without a name is that of the first reason.
    """
    targets = dict.fromkeys(each.target or None for each in publishers if each.alive)
    for target in targets:
        own = [each for each in publishers if each.alive and (each.target or None) == target]
        longest: dict[tuple[By | None, str], RefusedTopic] = {}
        for topic in (topic for each in own for topic in each.paused):
            known = longest.setdefault((topic.by, topic.topic), topic)
            if (topic.seconds or 0.0) > (known.seconds or 0.0):
                longest[topic.by, topic.topic] = topic
        more = max(each.paused_more for each in own)
        for by in dict.fromkeys(by for by, _ in longest):
            yield target, [each for each in longest.values() if each.by == by], more
            more = 0


def _blocked(status: Status, commands: Commands) -> Iterator[Attention]:
    if number := status.failures.blocked:
        verb = (
            "is blocked and holds back its subject"
            if number == 1
            else "are blocked and hold back their subjects"
        )
        worst = next((each for each in status.failures.worst if each.retry_seconds is None), None)
        yield Attention(
            f"{counted(number, 'message')} {verb}, until an operator decides. "
            f"{_meanwhile(status, None)}",
            commands.messages("list", _BLOCKED),
            None if worst is None else worst.error,
            _BLOCKED,
        )


def _paused(status: Status, commands: Commands, said: str) -> Iterator[Attention]:
    """Topics that an operator has paused; `said` is what was said before."""
    for topic in status.paused_topics:
        of = f" of target {topic.target}" if topic.target else ""
        paused = _paused_text(topic.paused_seconds, topic.paused_by, topic.reason)
        backlog = _queue_of(status, topic.target or DEFAULT_TARGET).backlog
        # The outbox counts no messages of one topic. Those of the target are said once.
        waits = "" if backlog in said else f" Meanwhile {backlog}, other topics included."
        said += waits
        text = f"Topic {topic.topic}{of} {paused}{waits}"
        yield Attention(text, commands.resume(topic.topic, topic.target))


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
    concerned = [each.name for each in status.targets if each.failing.count]
    target = concerned[0] if len(concerned) == 1 else None
    of = f" of target {target}" if target else ""
    again = duration(max(0.0, worst.retry_seconds or 0.0))
    tries = f"failed {counted(worst.attempts, 'time')}; the next attempt is in {again}."
    if found == Bounded(1, more=False):
        text = f"{of} fails and holds back its subject. It {tries}"
        command = commands.event(worst.event_id)
    else:
        text = f"{of} fail and hold back their subjects. One {tries}"
        command = commands.messages("list", Selection(state="failing", target=target))
    text = f"{_messages(found)}{text} {_meanwhile(status, target)}"
    yield Attention(text, command, worst.error)


def _late(status: Status, queue: _Queue, commands: Commands) -> Iterator[Attention]:
    """A backlog without another reason."""
    seconds, hot = queue.oldest_seconds or 0.0, status.hot_subject
    if seconds <= SLOW:
        return
    behind = f"The publishers{queue.of} are behind: {queue.backlog}."
    limit = LATE if seconds > LATE else SLOW
    if hot is None or not hot.is_long or not queue.has(hot.shard):
        slow = "The broker or the database is slow, or there are too few publishers."
        if limit == LATE:
            yield Attention(f"{behind} {slow}", commands.watch())
        return
    others = any(
        each.shard != hot.shard and queue.has(each.shard) and (each.oldest_seconds or 0.0) > limit
        for each in status.shards
    )
    about = behind if others else f"One subject{queue.of} is slow, the rest is not:"
    yield Attention(
        f"{about} {hot.key} has at least {hot.messages:,} messages in shard {hot.shard}, the "
        f"oldest waits for {duration(seconds)}, and a subject is sent in its order, "
        "one message after the other. More publishers do not help it: wait, or split the subject "
        f"({_SPLIT}).",
        commands.entity(hot.key),
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
            status.dead_error,
            _DEAD,
        )


def _meanwhile(status: Status, target: str | None) -> str:
    """What waits for a target; None: for all of them."""
    return f"Meanwhile {_queue_of(status, target).backlog}."


def _queue_of(status: Status, target: str | None) -> _Queue:
    found = [_queue(status, each) for each in status.targets if each.name == target]
    return found[0] if found else _whole(status)


def _messages(number: Bounded) -> str:
    return f"{number.count:,}+ messages" if number.more else counted(number.count, "message")
