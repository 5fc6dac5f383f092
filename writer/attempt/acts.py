"""The acts of a write on a connection: the port of the bodies to the programs. No I/O."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.failure import DatabaseFailure
from dsql_outbox.outbox.unit_of_work.primitives import Program
from dsql_outbox.writer.statement.answers import Found, Stored

from .pending import Pending


class Acts(ABC):
    """Writes and looks up events. Each act returns its result or its failure.

    A body also tells how its work goes on, to whoever counts that.
    """

    @abstractmethod
    def write(
        self, batch: Sequence[Pending], *, fresh: bool
    ) -> Program[Sequence[Stored] | DatabaseFailure]:
        """Write events in one transaction, on a connection that was never used if `fresh`.

        The result is what each event got, in order, of those that had not left when it was sent.
        """

    @abstractmethod
    def look_up(self, ids: Iterable[UUID]) -> Program[Mapping[UUID, Found] | DatabaseFailure]:
        """Read what is stored under these ids. An id that is absent may still be stored later."""

    @abstractmethod
    def attempted(
        self, batch: Sequence[Pending], failure: DatabaseFailure | None, started_ns: int
    ) -> None:
        """Hear how a transaction of these events ended; of none, if it was a run of `transact`."""

    def take_turn(self, batch: Sequence[Pending]) -> Program[bool]:  # noqa: ARG002 - see `TurnActs`
        """Wait until it is the turn of events that lost a conflict; False: their time is over.

        Unless a body takes turns, it is always their turn.
        """
        yield from ()
        return True

    @abstractmethod
    def goes_on(self) -> None:
        """Hear that the first attempt did not settle all events."""

    @abstractmethod
    def conflicted(  # noqa: PLR0913 - the parts of one report
        self,
        failure: DatabaseFailure,
        events: Sequence[ParsedEvent],
        *,
        given_up: Sequence[ParsedEvent],
        started_ns: int,
        wait: float | None,
        in_transact: bool = False,
    ) -> None:
        """Hear why a transaction of these events failed, and which of them are given up."""
