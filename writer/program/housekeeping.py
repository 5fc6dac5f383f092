"""What a call does for its process after it is settled: the backlog alarm.

No I/O. It is short work on a connection, and its error does not reach the caller.
"""

from collections.abc import Sequence
from typing import Any

from dsql_outbox.outbox.database.exchange import Row
from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Program, Query
from dsql_outbox.writer.core import Core


class Housekeeping:
    """Reads the age of the backlog when that is due."""

    def __init__(self, core: Core, connections: Lender[Any]) -> None:
        self._alarm = core.alarm
        self._connections = connections

    def after(self, gate: Gate) -> Program[None]:
        """Do what is due after a settled call, if the call wrote."""
        if not (gate.wrote and self._alarm.is_due()):
            return
        deadline = gate.housekeeping_deadline
        try:
            age = yield from self._connections.lend(self._read_backlog, deadline=deadline)
            self._alarm.tell_age(age)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._alarm.tell_failure(error)

    def _read_backlog(self, connection: Any) -> Program[Sequence[Row]]:
        rows: Sequence[Row] = yield Query(connection, self._alarm.query, self._alarm.parameters)
        return rows
