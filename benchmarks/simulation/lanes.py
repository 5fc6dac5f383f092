"""One schedule in both lanes of the relay, with pages and without: what must be the same.

The relay is the same in both lanes but for the rows that it keeps in pages, so whatever a user can
see is the same:

- The same events were written.
- Each ended in the same way: it was delivered, left out by the map, buried or blocked after as many
  attempts, or it waits.
- The first deliveries of each subject came in the same order.

Time and chance may differ, since the calls of the sink have other rows, and each run takes a time
and a fate by chance. So these may differ:

- When a message arrives, and which messages arrive again after a fault. `judge` says for each lane
  when they may. A replay is refused while its event waits, so replays may differ, too.
- The end of a message that failed at least as often as it may, and has been delivered in one lane.
  Some of its failures counted for nobody: a publisher was lost before it recorded them, or the map
  worked for no message of the topic. Then the message may be well before it is given up. If
  dead letters block their subjects, so may the end of what is behind it.
- The attempts of a dead letter, for the same reason, if publishers or leases were lost.
"""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple
from unittest.mock import PropertyMock, patch

from dsql_outbox.publisher.relay.memory.queues import Queues
from dsql_outbox.publisher.relay.store import SubjectName
from dsql_outbox.schema.outbox_rows import RowId

from .history import History, name_of
from .judge import Terms

Lane = Literal["pages", "rows", "both"]
"""Rows that may be in pages, rows that are all in the queues of their subjects, or one after the
other."""

_FAILURES: Final = frozenset({"Retry", "Raised"})


@contextmanager
def only_rows() -> Generator[None]:
    """Let no row be in a page."""
    never: Any = PropertyMock(return_value=False)
    with patch.object(Queues, "has_pages", never, create=True):
        yield


class _End(NamedTuple):
    how: str
    attempts: int = 0

    def __str__(self) -> str:
        return f"{self.how} after {self.attempts} attempts" if self.attempts else self.how


class _Ends:
    """How the events of a run ended, without replays."""

    def __init__(self, history: History) -> None:
        self._first = dict.fromkeys(arrival.row for arrival in history.arrivals)
        given_up = {
            change.row: _End(change.kind, change.attempts)
            for change in history.changes
            if change.kind in {"buried", "blocked"}
        }
        skipped = {each.row for each in history.answers if each.outcome == "Skipped"}
        self.failures = Counter(a.row for a in history.answers if a.outcome in _FAILURES)
        self.of: defaultdict[SubjectName, dict[RowId, _End]] = defaultdict(dict)
        """The end of each event of a subject, in its order."""
        for each in history.committed:
            end = _End("left")
            if each.row in self._first:
                end = _End("delivered")
            elif each.row in given_up:
                end = given_up[each.row]
            elif each.row in skipped and each.row not in history.left:
                end = _End("left out")
            if not each.replay:
                self.of[each.subject][each.row] = end

    def first(self, subject: SubjectName) -> list[RowId]:
        """The events of a subject that were delivered, in the order of their first arrivals."""
        return [row for row in self._first if row in self.of[subject]]


def differences(pages: History, rows: History, terms: Terms, *, blocks: bool) -> Iterator[str]:
    """What differs between the runs of a target in both lanes, and must not.

    With `blocks`, a dead letter blocks its subject.
    """
    mine, other = _Ends(pages), _Ends(rows)
    for subject in sorted(mine.of.keys() | other.of.keys()):
        name, ends, others = "/".join(subject), mine.of[subject], other.of[subject]
        if ends.keys() != others.keys():
            yield f"{len(ends)} events of {name} were written with pages, and {len(others)} without"
            continue
        for row, end in ends.items():
            if end == others[row] or (end.how == others[row].how and terms.harmed):
                continue
            if not _is_by_chance(row, mine, other, subject, terms.attempts):
                yield f"{name_of(row)} of {name} is {end} with pages, and {others[row]} without"
            elif blocks:
                break
        first, others_first = mine.first(subject), other.first(subject)
        both = {*first} & {*others_first}
        if [row for row in first if row in both] != [row for row in others_first if row in both]:
            yield f"the events of {name} first arrived in another order than without pages"


def _is_by_chance(row: RowId, mine: _Ends, other: _Ends, subject: SubjectName, most: int) -> bool:
    """Whether a message was delivered in one lane after as many failures as it may have."""
    return any(
        each.of[subject][row].how == "delivered" and each.failures[row] >= most
        for each in (mine, other)
    )
