"""The rules that are checked when a publisher acts, by the state of the tables at that moment."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from tests.support.publisher.lease_tables import Row as LeaseRow
from tests.support.publisher.lease_tables import Tables as LeaseTables

from dsql_outbox.outbox import Message
from dsql_outbox.schema.outbox_rows import RowId

from .history import History, Sent, Struck, name_of
from .machines import Machine
from .outbox_model import Tables
from .schedule import EARLY


class Watch:
    """Sees what all publishers read, send and settle; `now` returns true time.

    A publisher sends and settles only under a lease that lasts, and sends only rows that it
    read under this lease. It sends no row that waits, and none of a topic that is paused as
    far as it was told. When a shard is taken over, no message of it is on its way.
    """

    def __init__(
        self, now: Callable[[], float], tables: Tables, leases: LeaseTables, history: History
    ) -> None:
        self._now = now
        self._tables = tables
        self._leases = leases
        self._history = history
        self._machines: dict[str, Machine] = {}
        self._read_at: dict[tuple[str, RowId], float] = {}
        self._paused: dict[str, Collection[str]] = {}
        self._in_flight: Counter[tuple[str, int, int]] = Counter()
        leases.on_take = self._taken

    def starts(self, publisher: str, machine: Machine) -> None:
        """Know the machine of a publisher."""
        self._machines[publisher] = machine

    def reads(self, publisher: str, rows: Iterable[RowId]) -> None:
        """Note the rows that a read of a publisher sees now."""
        now = self._now()
        self._read_at.update(((publisher, row), now) for row in rows)

    def learns(self, publisher: str, topics: Collection[str]) -> None:
        """Note which topics are paused, as a publisher was told."""
        self._paused[publisher] = frozenset(topics)

    def sends(self, publisher: str, row: RowId, message: Message) -> None:
        """Check a message that a publisher sends; `ends` is the next step."""
        now, epoch = self._now(), int(message.headers["leaseepoch"])
        sent = Sent(now, row, publisher, epoch, message.attempt, message.dedupe_id)
        self._history.sent.append(sent)
        self._in_flight[publisher, row.shard, epoch] += 1
        lease, failure = self._leases.leases[row.shard], self._tables.failures.get(row)
        if (lease.owner, lease.epoch) != (publisher, epoch) or lease.expires_at <= now:
            self._fault(f"{publisher} sends {name_of(row)} without the lease of its shard")
        elif self._read_at.get((publisher, row), now) < lease.taken_at:
            self._fault(f"{publisher} sends {name_of(row)}, which it read under an earlier lease")
        elif failure is not None and failure.at <= lease.taken_at:
            waits_until = failure.at + EARLY * (failure.retry_at - failure.at)
            if now < waits_until:
                self._fault(
                    f"{publisher} sends {name_of(row)}, which waits until {waits_until:.1f} s"
                )
        if message.topic in self._paused.get(publisher, ()):
            self._fault(f"{publisher} sends {name_of(row)} though {message.topic} is paused")

    def ends(self, publisher: str, row: RowId, message: Message) -> None:
        """Note that a message is on its way no longer."""
        self._in_flight[publisher, row.shard, int(message.headers["leaseepoch"])] -= 1

    def settles(self, publisher: str, kind: str, rows: Iterable[RowId]) -> None:
        """Check the rows of a statement of a publisher that only an owner may send."""
        for row in rows:
            lease = self._leases.leases[row.shard]
            if lease.owner != publisher or lease.expires_at <= self._now():
                self._fault(
                    f"{name_of(row)} is {kind} by {publisher} without the lease of its shard"
                )

    def _taken(self, lease: LeaseRow, owner: str) -> None:
        """Check that the publisher before has no message on its way, unless it stands still."""
        before = lease.owner
        (shard,) = (shard for shard, each in self._leases.leases.items() if each is lease)
        of = "" if before is None else f" of {before}"
        self._history.struck.append(Struck(self._now(), owner, f"takes shard {shard}{of}"))
        machine = self._machines.get(before or "")
        if before is None or machine is None or machine.is_still:
            return
        if self._in_flight[before, shard, lease.epoch]:
            self._fault(f"shard {shard} is taken while a message of {before} is on its way")

    def _fault(self, text: str) -> None:
        self._history.faults.append(text)
