"""The run of a schedule as lines that a person reads: who did what, and when."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap
from typing import Final, NamedTuple
from uuid import UUID

from dsql_outbox.schema.outbox_rows import RowId

from .history import Committed, History
from .outbox_model import EPOCH
from .schedule import TOPICS, Fault, Schedule

WIDTH: Final = 80

_FIRST: Final = 45
_LAST: Final = 15
"""The numbers of lines that are shown of a long run, at its begin and at its end."""

_SOON: Final = 0.1
"""Seconds: a transaction that takes longer is said to have begun earlier."""

_BY_ITSELF: Final = frozenset({"crash", "stop", "pause"})
"""The faults that the history of a publisher tells."""

_CHANGES: Final = {
    "deleted": "deletes",
    "buried": "buries",
    "recorded": "records a failure of",
    "blocked": "blocks",
    "forgotten": "forgets the failure of",
}


class Moment(NamedTuple):
    """`who` did something at a time, with an event if there is one; `more` follows its number."""

    at: float
    who: str
    what: str
    event: int | None = None
    more: str = ""


def moments(schedule: Schedule, histories: Sequence[History]) -> list[Moment]:
    """Everything that happened, in its order."""
    told = [moment for fault in schedule.faults for moment in _fault(fault)]
    for target, history in enumerate(histories):
        told += _history(history, f" {target}" if target else "")
    return sorted(told, key=lambda each: each.at)


def timeline(
    schedule: Schedule, histories: Sequence[History], broken: Sequence[str]
) -> Iterator[str]:
    """The lines of a run, none wider than `WIDTH`, and the rules that it broke."""
    told = moments(schedule, histories)
    lines = [_text(list(same)) for _, same in groupby(told, _kind)]
    who = max((len(each.who) for each in told), default=0)
    left_out = len(lines) - _FIRST - _LAST
    for number, (at, name, what) in enumerate(lines):
        if left_out > 1 and number == _FIRST:
            yield f"{'..':>9}  {left_out} lines are left out"
        if left_out <= 1 or not _FIRST <= number < _FIRST + left_out:
            yield from _wrapped(f"{at:7.2f} s  {name:<{who}}  ", what)
    yield f"{histories[0].end:7.2f} s  the run ends"
    for each in broken:
        yield from _wrapped("broken:    ", each)


def _wrapped(head: str, text: str) -> list[str]:
    return wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * (len(head) + 2))


def _kind(moment: Moment) -> tuple[str, str, str]:
    """The same for moments that one line tells."""
    return moment.who, moment.what, moment.more


def _text(same: Sequence[Moment]) -> tuple[float, str, str]:
    """The time of the first of these moments, who it was, and what happened how often."""
    at, who, what, _, more = same[0]
    numbers = [each.event for each in same if each.event is not None]
    if numbers:
        what += f" event{'s' * (len({*numbers}) > 1)} {_ranges(sorted({*numbers}))}"
    elif len(same) > 1:
        what += f", {len(same)} times until {same[-1].at:.2f} s"
    return at, who, what + more


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as text, like 1-4, 7."""
    runs = [
        [number for _, number in run]
        for _, run in groupby(enumerate(numbers), lambda each: each[1] - each[0])
    ]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _fault(fault: Fault) -> Iterator[Moment]:
    if fault.kind in _BY_ITSELF:
        return
    of = f"{'t' if fault.kind in TOPICS else 'p'}{fault.of}"
    who = f"{of} of target {fault.target}" if fault.target else of
    kind = fault.kind.removeprefix("topic ")
    yield Moment(fault.at, who, f"fault begins: {kind}")
    yield Moment(fault.at + fault.length, who, f"fault ends: {kind}")


def _number(row: RowId) -> int:
    return UUID(row.event_id).int


def _history(history: History, target: str) -> Iterator[Moment]:
    for new in history.committed:
        yield Moment(new.at, f"writer{target}", "commits", _number(new.row), _written(new))
    for struck in history.struck:
        yield Moment(struck.at, struck.publisher, struck.what)
    replays = {each.row for each in history.committed if each.replay}
    for sent in history.sent:
        more = f", attempt {sent.attempt}" + ", a replay" * (sent.row in replays)
        yield Moment(sent.at, sent.publisher, "sends", _number(sent.row), more)
    for arrival in history.arrivals:
        yield Moment(arrival.at, f"broker{target}", "stores", _number(arrival.row))
    for told in history.answers:
        more = f": {told.outcome}"
        yield Moment(told.at, told.publisher, "is told of", _number(told.row), more)
    for change in history.changes:
        verb = _CHANGES[change.kind]
        more = f", attempt {change.attempts}" * (change.attempts > 0)
        yield Moment(change.at, change.publisher, verb, _number(change.row), more)
    for row, is_blocked in history.left.items():
        more = ", blocked" * is_blocked
        yield Moment(history.end, f"outbox{target}", "still has", _number(row), more)


def _written(new: Committed) -> str:
    """The subject of a new row, and how far its position is from the clock."""
    ahead = new.row.position / 1_000_000 - EPOCH - new.at
    text = f" of {'/'.join(new.subject)} to {new.topic} in shard {new.row.shard}"
    if new.replay:
        text += f", replay {new.replay}"
    if ahead > _SOON:
        text += f", positions {ahead:,.0f} s ahead"
    elif ahead < -_SOON:
        text += f", begun {-ahead:.1f} s before"
    return text
