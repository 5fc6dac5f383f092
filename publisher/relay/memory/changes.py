"""The changes that the tables do not have yet: rows to delete, failures, dead letters. No I/O."""

from collections import deque
from typing import Final

from dsql_outbox.publisher.relay.store import Failure
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId

from .pages import Part
from .subjects import Hold, Subject

_ERROR_LENGTH: Final = 1_000


class Changes:
    """The changes that the ends of rows leave to `Settler`, which takes them out once committed."""

    def __init__(self) -> None:
        self.acknowledged: dict[RowId, OutboxRow] = {}
        """The rows to delete, which the broker has."""
        self.parts: deque[Part] = deque()
        """Those that are in pages."""
        self._in_parts = 0
        self.failures: dict[RowId, tuple[Failure, Hold, Subject]] = {}
        self.letters: dict[RowId, tuple[Letter, Subject]] = {}
        self.recovered: set[RowId] = set()
        """Rows that failed earlier and are settled now, whose failures are to be deleted."""
        self.applying = 0
        """How many messages wait to be applied, each with its delete."""

    @property
    def are_none(self) -> bool:
        """Whether nothing is left to write, except for messages to apply."""
        deletes = self.acknowledged or self.parts
        return not (deletes or self.recovered or self.failures or self.letters)

    @property
    def deletes(self) -> int:
        """How many rows the broker or a function has, or is to have, that are not deleted."""
        return len(self.acknowledged) + self._in_parts + self.applying

    @property
    def shards_to_record(self) -> set[int]:
        """The shards with a failure to record, which their next owner must know."""
        return {subject.shard.number for _, _, subject in self.failures.values()}

    def acknowledge(self, row: OutboxRow) -> bool:
        """Have a row deleted. Returns False if a copy of it is to be deleted already.

        Its shard was lost and taken again, and it was sent twice.
        """
        return self.acknowledged.setdefault(row.id, row) is row

    def acknowledge_part(self, part: Part) -> None:
        """Have rows of a page deleted. A copy of one may be deleted too, which does no harm."""
        self.parts.append(part)
        self._in_parts += len(part)

    def note_deleted(self, parts: int) -> list[Part]:
        """Take out the first parts, which are deleted."""
        gone = [self.parts.popleft() for _ in range(parts)]
        self._in_parts -= sum(map(len, gone))
        return gone

    def recover(self, row: RowId) -> None:
        """Have the failure of a row deleted that is settled now."""
        self.failures.pop(row, None)
        self.recovered.add(row)

    def record(self, subject: Subject, hold: Hold, error: str, seconds: float | None) -> None:
        """Have the failure of a row recorded; None: it waits for an operator."""
        failure = Failure(hold.id, _storable(error), hold.attempts, seconds)
        self.failures[hold.id] = failure, hold, subject

    def bury(self, subject: Subject, error: str, attempts: int) -> Subject | None:
        """Have the busy row of a subject buried. Returns the subject of a copy of it, if any."""
        row = subject.busy_row.id
        self.failures.pop(row, None)
        earlier = self.letters.get(row)
        self.letters[row] = Letter(row, _storable(error), attempts), subject
        return None if earlier is None else earlier[1]


def _storable(error: str) -> str:
    """The text of an error without NUL and lone surrogates, which the database refuses."""
    return error[:_ERROR_LENGTH].replace("\0", "").encode(errors="replace").decode()
