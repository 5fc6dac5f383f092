"""The gate of a call: it decides what may be sent now.

Every statement that may store something passes it, COMMIT included. So work is sent when the
gate has admitted it, and at no other time.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final, Protocol

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.connection import AsyncConnection, Connection

from . import faults

LONGEST_HOUSEKEEPING: Final = 1.0
"""Seconds that work after a settled call may take. Then the connection is closed."""


class Member(Protocol):
    """A call that shares an attempt with others."""

    is_sent: bool

    @property
    def deadline(self) -> float | None:
        """The deadline of the call, a time of the monotonic clock, or None."""
        ...

    def expire(self) -> object:
        """End the call at its deadline."""
        ...


class Gate:
    """The deadline of one call, and whether its current attempt may be stored.

    `deadline` is a time of the monotonic clock, or None. If calls share a transaction, it is
    the latest of theirs. `sent` is True if the write of
    the current attempt may have reached the server. `wrote` is True if the call has
    stored something.
    """

    __slots__ = ("deadline", "sent", "wrote")

    def __init__(self, timeout: float | None) -> None:
        self.deadline: float | None
        self.restart(timeout)
        self.sent = False
        self.wrote = False

    def restart(self, timeout: float | None) -> None:
        """Let the time of the call begin now."""
        self.deadline = None if timeout is None else monotonic() + timeout

    @property
    def housekeeping_deadline(self) -> float:
        """The deadline of work that starts now, after a settled call."""
        own = monotonic() + LONGEST_HOUSEKEEPING
        return own if self.deadline is None else min(own, self.deadline)

    def admit(
        self,
        what: str,
        connection: Connection | AsyncConnection,
        status: TransactionStatus,
        members: Sequence[Member] = (),
    ) -> bool:
        """Let `what`, of these calls, be sent on this connection.

        From now on it may be stored. If the deadline of some of these calls has passed, they
        end, nothing may be sent, and the answer is False. The others may try again at once.

        The values of `what` must be encoded already, so that nothing can fail between this call and
        the first byte. Raises the driver's `OperationalError` after the deadline: a write
        that is sent then could only end in `OutcomeUnknown`. Raises `ProgrammingError` in
        another process than the one that opened the connection, or if the transaction
        status is not `status`.
        """
        now = monotonic()
        self._require_time(what, now)
        if connection.is_inherited:
            raise psycopg.ProgrammingError(
                f"{what} was not sent: another process opened the connection"
            )
        found = connection.pgconn.transaction_status
        if found != status:
            raise psycopg.ProgrammingError(
                f"{what} was not sent: the transaction is {TransactionStatus(found).name} "
                f"instead of {status.name}"
            )
        late = [m for m in members if m.deadline is not None and now >= m.deadline]
        for member in late:
            member.expire()
        if late:
            return False
        self.sent = True
        for member in members:
            member.is_sent = True
        if faults.active is not None:
            faults.active.before_sending()
        return True

    def admit_commit(self) -> None:
        """Let COMMIT be sent on a connection of a caller's pool, as `admit` does on one of ours.

        Raises the driver's `OperationalError` after the deadline.
        """
        self._require_time("COMMIT", monotonic())
        self.sent = True
        if faults.active is not None:
            faults.active.before_sending()

    def _require_time(self, what: str, now: float) -> None:
        if self.deadline is not None and now >= self.deadline:
            raise psycopg.OperationalError(
                f"{what} was not sent: the deadline of the call (timeout) has passed"
            )
