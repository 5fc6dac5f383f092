"""The events of a run, as the tables and the broker saw them: for the judge."""

from collections import Counter
from typing import NamedTuple
from uuid import UUID

from dsql_outbox.publisher.relay.store import SubjectName
from dsql_outbox.schema.outbox_rows import RowId


class Committed(NamedTuple):
    """A row that a writer committed; `replay` is its number, 0 for the event itself.

    `is_late` says that it took its position about a second before its commit, or longer.
    `is_sick` says that the broker refuses it or its topic at times, `is_broken` that
    the row can be no message. `is_skipped` says that the map leaves it out.
    """

    at: float
    row: RowId
    subject: SubjectName
    version: int
    replay: int
    topic: str
    is_late: bool
    is_sick: bool
    is_broken: bool
    is_skipped: bool = False


class Sent(NamedTuple):
    """A message that a publisher gave to its sink, read under the lease with this epoch."""

    at: float
    row: RowId
    publisher: str
    epoch: int
    attempt: int
    dedupe_id: str


class Arrival(NamedTuple):
    """A message that the broker stored."""

    at: float
    row: RowId
    publisher: str


class Answered(NamedTuple):
    """An outcome that a publisher was told: the name of its class, or what its map did."""

    at: float
    row: RowId
    publisher: str
    outcome: str


class Changed(NamedTuple):
    """A row that a statement deleted, buried, or recorded as failed, for `publisher`.

    The statement was sent at `sent_at` and ran at `at`. `attempts` are those it named.
    """

    at: float
    sent_at: float
    kind: str
    row: RowId
    publisher: str
    attempts: int


class Struck(NamedTuple):
    """A fault that struck a publisher, or a step of its own: that it starts, or takes a shard."""

    at: float
    publisher: str
    what: str


def name_of(row: RowId) -> str:
    """The event of a row as all messages name it."""
    return f"event {UUID(row.event_id).int}"


class History:
    """Everything in the order in which it happened; all times are true seconds."""

    def __init__(self) -> None:
        self.committed: list[Committed] = []
        self.sent: list[Sent] = []
        self.arrivals: list[Arrival] = []
        self.answers: list[Answered] = []
        self.mapped: dict[tuple[str, str], float] = {}
        """When the map of each publisher first worked for a topic."""
        self.changes: list[Changed] = []
        self.written: Counter[SubjectName] = Counter()
        """The last version of each subject, whether or not it is for this target."""
        self.faults: list[str] = []
        """Rules that were broken, found where it happened."""
        self.struck: list[Struck] = []
        self.counts: Counter[str] = Counter()
        """How often each kind of fault struck."""
        self.left: dict[RowId, bool] = {}
        """The rows that are in the outbox at the end, and whether each is blocked."""
        self.end = 0.0
        """When the run ended."""

    def strike(self, at: float, publisher: str, what: str) -> None:
        """Note and count a fault that struck a publisher."""
        self.struck.append(Struck(at, publisher, what))
        self.counts[what] += 1
