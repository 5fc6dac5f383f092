"""The rules that a run must keep, checked on what the tables and the broker saw: pure.

It knows only the promises of the relay, not its inner workings. Nothing is lost. The first
arrivals of a subject are in order. Only acknowledged and buried rows leave the table. No
outage counts against a message. Healthy messages leave in time, and those that failed after
their wait. `watch` has the rules that are checked when a publisher acts.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, NamedTuple

from dsql_outbox.publisher.relay.store import SubjectName
from dsql_outbox.schema.outbox_rows import RowId

from .broker import LIMIT
from .history import Answered, Changed, Committed, History, Sent, name_of
from .schedule import DRIFT, EARLY

_CHARGED: Final = frozenset({"Retry", "Rejected"})
_BY_MAP: Final = frozenset({"Raised", "Skipped", "Refused"})
_DONE: Final = frozenset({"Delivered", "Skipped"})
_FOR_GOOD: Final = frozenset({"Rejected", "Refused"})
_GIVEN_UP: Final = frozenset({"buried", "blocked"})


class Terms(NamedTuple):
    """The rules for a run.

    `attempts` is that of the settings, `backoff` the wait in seconds after so many of them,
    and `topics` are those with trouble. From `ready_at` on, in seconds, a subject's next
    message leaves within `bound` seconds if it is healthy, or `late_bound` if it was
    committed late. Without `harmed` no message is sent twice, with `once` none is in any case. The
    target of a `whole` one was there from the start. The `unmapped` topics may be paused for
    `unmapped_bound` seconds, since the map fails for some of their messages.
    """

    attempts: int
    backoff: Callable[[int], float]
    topics: Collection[str]
    ready_at: float
    bound: float
    late_bound: float
    harmed: bool
    once: bool = False
    whole: bool = True
    unmapped: Collection[str] = ()
    unmapped_bound: float = 0.0


def judge(history: History, terms: Terms) -> list[str]:
    """Return the rules that were broken, each as a sentence with the row concerned."""
    rules = (
        _lost,
        _disordered,
        _deleted,
        _skipped,
        _charged,
        _late,
        _hurried,
        _forgotten,
        _repeated,
        _confused,
        _holes,
    )
    case = _Case(history, terms)
    return [*dict.fromkeys(history.faults), *(fault for rule in rules for fault in rule(case))]


class _Case:
    """A history by row and by subject."""

    def __init__(self, history: History, terms: Terms) -> None:
        self.history = history
        self.name = {
            each.row: f"{name_of(each.row)} of {'/'.join(each.subject)}"
            for each in history.committed
        }
        self.terms = terms
        self.first: dict[RowId, float] = {}
        """When each row first arrived at the broker."""
        for arrival in history.arrivals:
            self.first.setdefault(arrival.row, arrival.at)
        self.called: dict[RowId, float] = {}
        """When the map first did something else with a row than to map it."""
        self.skipped: set[RowId] = set()
        """The rows that the map has left out."""
        for answer in history.answers:
            if answer.outcome in _BY_MAP:
                self.called.setdefault(answer.row, answer.at)
            if answer.outcome == "Skipped":
                self.skipped.add(answer.row)
        self.died = {c.row: c.at for c in history.changes if c.kind == "buried"}
        self.subjects: defaultdict[SubjectName, list[Committed]] = defaultdict(list)
        """The events of each subject, in its order, without replays."""
        for each in history.committed:
            if not each.replay:
                self.subjects[each.subject].append(each)
        self.sent: defaultdict[RowId, list[Sent]] = defaultdict(list)
        for sent in history.sent:
            self.sent[sent.row].append(sent)
        self.answers: defaultdict[RowId, list[Answered]] = defaultdict(list)
        for answer in history.answers:
            self.answers[answer.row].append(answer)
        self.changes: defaultdict[RowId, list[Changed]] = defaultdict(list)
        for change in history.changes:
            self.changes[change.row].append(change)


def _lost(case: _Case) -> Iterator[str]:
    """Each row was delivered or buried, or is blocked, or waits behind a blocked one.

    A replay may have the position of the blocked one, and then it waits, too.
    """
    left, blocked = case.history.left, _blocked(case.history)
    for each in case.history.committed:
        if each.row in left:
            before = blocked.get(each.subject)
            if before is None or each.row.position < before.position:
                yield f"{case.name[each.row]} is still in the outbox at {case.history.end:.1f} s"
        elif not (each.row in case.first or each.row in case.died or each.row in case.skipped):
            yield f"{case.name[each.row]} is lost"


def _blocked(history: History) -> dict[SubjectName, RowId]:
    """The first row of each subject that waits for an operator at the end."""
    blocked: dict[SubjectName, RowId] = {}
    for each in history.committed:
        if history.left.get(each.row):
            blocked.setdefault(each.subject, each.row)
    return blocked


def _disordered(case: _Case) -> Iterator[str]:
    """No event first arrives before an earlier one of its subject has arrived or died."""
    for events in case.subjects.values():
        latest = 0.0
        for each in events:
            arrived = case.first.get(each.row)
            if arrived is not None and arrived < latest:
                yield f"{case.name[each.row]} arrived at {arrived:.3f} s, before the row before it"
            if not each.is_skipped:
                latest = max(latest, _over_at(case, each.row))


def _over_at(case: _Case, row: RowId) -> float:
    """When a row first arrived or died; infinity: never."""
    never = float("inf")
    return min(case.first.get(row, never), case.died.get(row, never))


def _deleted(case: _Case) -> Iterator[str]:
    """A publisher deletes only what was acknowledged to it before."""
    for change in case.history.changes:
        if change.kind == "deleted" and not any(
            a.publisher == change.publisher and a.outcome in _DONE and a.at <= change.sent_at
            for a in case.answers[change.row]
        ):
            yield f"{case.name[change.row]} was deleted without an acknowledgement"


def _skipped(case: _Case) -> Iterator[str]:
    """What the map leaves out never arrives, and is deleted behind what comes before it."""
    for events in case.subjects.values():
        latest = 0.0
        for each in events:
            if not each.is_skipped:
                latest = max(latest, _over_at(case, each.row))
                continue
            if each.row in case.first:
                yield f"{case.name[each.row]} arrived, and the map leaves it out"
            for change in case.changes[each.row]:
                if change.kind == "deleted" and change.at < latest:
                    yield f"{case.name[each.row]} was left out before the row before it was over"


def _charged(case: _Case) -> Iterator[str]:
    """A message is charged with the broker's answers about it, and dies of nothing else."""
    for each in case.history.committed:
        if each.is_broken:
            continue
        name, changes, attempts = case.name[each.row], case.changes[each.row], case.terms.attempts
        charged = [a for a in case.answers[each.row] if a.outcome in _CHARGED]
        by_map = [a for a in case.answers[each.row] if a.outcome in {"Raised", "Refused"}]
        is_rejected = any(a.outcome in _FOR_GOOD for a in case.answers[each.row])
        for change in changes:
            known = sum(a.at <= change.sent_at for a in charged)
            known += sum(_is_fault(case, a, each.topic, change.sent_at) for a in by_map)
            if change.attempts > known:
                yield f"{name} is charged {change.attempts} attempts after {known} failures"
            if change.kind in _GIVEN_UP and not is_rejected and known < attempts:
                yield f"{name} was {change.kind} after {known} failures"
        if len(charged) > attempts and len(charged) > attempts + _unknown(charged, changes):
            yield f"{name} was tried {len(charged)} times"


def _is_fault(case: _Case, answer: Answered, topic: str, at: float) -> bool:
    """Whether what the map did may be counted: an error, if it has worked for the topic.

    An error behind other messages of a run is not counted, but that cannot be seen from here.
    """
    return answer.at <= at and case.history.mapped.get((answer.publisher, topic), at + 1) <= at


def _unknown(charged: Sequence[Answered], changes: Collection[Changed]) -> int:
    """How many failures no later attempt can know: none was recorded before the next one.

    That is so after a crash, or when the shard went to another publisher at that moment.
    Besides, two publishers may count the same attempt, and so may one whose shard was lost and
    taken again while a copy of the row was on its way.
    """
    ends = [*(each.at for each in charged[1:]), float("inf")]
    unknown = sum(
        not any(
            change.publisher == each.publisher and change.attempts and each.at <= change.at <= end
            for change in changes
        )
        for each, end in zip(charged, ends, strict=True)
    )
    counted = Counter(change.attempts for change in changes if change.kind == "recorded")
    is_twice = any(times > 1 for times in counted.values())
    return unknown + max(len({each.publisher for each in charged}) - 1, is_twice)


def _late(case: _Case) -> Iterator[str]:
    """The next message of a subject leaves in time, despite sick and hot subjects.

    A message that the broker refuses is sent in time. One without trouble has arrived, too.
    """
    for events in case.subjects.values():
        free = case.terms.ready_at
        for each in events:
            since = max(free, each.at)
            over = min(_over_at(case, each.row), case.history.end)
            if each.is_skipped:
                over = min(over, case.called.get(each.row, over))
            free = max(free, over)
            if each.is_broken or each.topic in case.terms.topics:
                continue
            sent = case.sent[each.row]
            left = sent[0].at if each.is_sick and sent else over
            if each.is_sick:
                left = min(left, case.called.get(each.row, left))
            bound = case.terms.late_bound if each.is_late else case.terms.bound
            if each.topic in case.terms.unmapped:
                bound += case.terms.unmapped_bound
            if left > since + bound:
                yield f"{case.name[each.row]} waited {left - since:.1f} s, from {since:.1f} s on"


def _failures(case: _Case) -> Iterator[tuple[Committed, Sent, Answered, Sent | None]]:
    """Each failed attempt that was answered, and the next attempt of anyone."""
    for each in case.history.committed:
        sent = case.sent[each.row]
        for answer in case.answers[each.row]:
            if answer.outcome == "Retry":
                before = [s for s in sent if s.at <= answer.at and s.publisher == answer.publisher]
                after = (s for s in sent if s.at > answer.at)
                yield each, before[-1], answer, next(after, None)


def _hurried(case: _Case) -> Iterator[str]:
    """A message that failed waits, longer each time, also after a hand-over without harm."""
    for each, failed, answer, retry in _failures(case):
        is_same = retry and (retry.publisher, retry.epoch) == (failed.publisher, failed.epoch)
        if retry is None or (case.terms.harmed and not is_same):
            continue
        if answer.at - failed.at > LIMIT:  # it stood still, and lost the shard meanwhile
            continue
        # A lease may end before the failure is recorded, and be renewed under the same epoch.
        # Such a failure is nobody's, so the next attempt has its number, and does not wait.
        if case.terms.harmed and retry.attempt == failed.attempt:
            continue
        wait = retry.at - answer.at
        if wait < EARLY * case.terms.backoff(failed.attempt):
            yield f"{case.name[each.row]} waited {wait:.2f} s after attempt {failed.attempt}"


def _forgotten(case: _Case) -> Iterator[str]:
    """A message that failed is tried again in time."""
    terms, history = case.terms, case.history
    if terms.harmed:
        return
    for each, failed, answer, retry in _failures(case):
        if failed.attempt >= terms.attempts or each.topic in terms.topics:
            continue
        due = max(answer.at + terms.backoff(failed.attempt) / (1 - DRIFT), terms.ready_at)
        tried = history.end if retry is None else retry.at
        if (late := tried - due) > terms.bound:
            yield f"{case.name[each.row]} was due at {due:.1f} s, and tried {late:.1f} s later"


def _repeated(case: _Case) -> Iterator[str]:
    """When nothing went wrong, each message arrives once."""
    if case.terms.harmed and not case.terms.once:
        return
    for row, times in Counter(a.row for a in case.history.arrivals).items():
        if times > 1:
            yield f"{case.name[row]} arrived {times} times"


def _holes(case: _Case) -> Iterator[str]:
    """A target has the events of a subject from one of them on, and each later one."""
    for subject, events in case.subjects.items():
        versions = [each.version for each in events]
        first = 1 if case.terms.whole else versions[0]
        if versions != [*range(first, case.history.written[subject] + 1)]:
            yield f"the target has the versions {versions} of {'/'.join(subject)}"


def _confused(case: _Case) -> Iterator[str]:
    """Each row has a dedupe id of its own, the same in all attempts."""
    rows: dict[str, RowId] = {}
    for sent in case.history.sent:
        if rows.setdefault(sent.dedupe_id, sent.row) != sent.row:
            yield f"{case.name[sent.row]} has the dedupe id of another row"
    for row, attempts in case.sent.items():
        if len({sent.dedupe_id for sent in attempts}) > 1:
            yield f"{case.name[row]} has several dedupe ids"
