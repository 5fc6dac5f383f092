"""What a call does for its process after it is settled: the backlog alarm and conflict report.

No I/O. It is short work on a connection, and its error does not reach the caller.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Program, Query
from dsql_outbox.writer.conflicts.conflict_log import StoredReport
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Row

T = TypeVar("T")


class Housekeeping:
    """Reads the age of the backlog and stores the counted conflicts, when that is due."""

    def __init__(self, core: Core, connections: Lender[Any]) -> None:
        self._alarm = core.alarm
        self._conflicts = core.conflicts
        self._connections = connections

    def after(self, gate: Gate) -> Program[None]:
        """Do what is due after a settled call, if the call wrote."""
        alarm, conflicts = self._alarm, self._conflicts
        if gate.wrote and alarm.is_due():
            yield from self._do(self._read_backlog, gate, alarm.tell_age, alarm.tell_failure)
        if gate.wrote and conflicts.counts.has_news:
            yield from self._store_report(conflicts.take_due(), gate)

    def store_last_report(self) -> Program[None]:
        """Store the conflicts that no report has yet."""
        return self._store_report(self._conflicts.take_last(), Gate(None))

    def _store_report(self, report: StoredReport | None, gate: Gate) -> Program[None]:
        if report is not None:
            store = partial(self._store, report)
            yield from self._do(store, gate, lambda _: None, self._conflicts.tell_failure)

    def _do(
        self,
        act: Callable[[Any], Program[T]],
        gate: Gate,
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> Program[None]:
        try:
            done((yield from self._connections.lend(act, deadline=gate.housekeeping_deadline)))
        except Exception as error:
            if is_interrupt(error):
                raise
            failed(error)

    def _read_backlog(self, connection: Any) -> Program[Sequence[Row]]:
        rows: Sequence[Row] = yield Query(connection, self._alarm.query, self._alarm.parameters)
        return rows

    def _store(self, report: StoredReport, connection: Any) -> Program[None]:
        """Store a report. A process's first report also deletes old rows of other processes."""
        conflicts = self._conflicts
        row = {"owner": report.owner, "report": report.report}
        yield Query(connection, conflicts.store, row, has_rows=False)
        if report.is_first:
            yield Query(connection, conflicts.prune, has_rows=False)
