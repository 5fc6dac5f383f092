"""The map of a publisher: which messages it leaves out, refuses, or fails for."""

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Refuse, WireForm
from dsql_outbox.schema.outbox_rows import RowId

from .broker import Broker, wire_payload
from .history import Answered


class ModelMap:
    """The map of the publishers of one process."""

    def __init__(self, broker: Broker, publisher: str) -> None:
        self._broker = broker
        self._publisher = publisher

    def __call__(self, message: Message) -> WireForm | Refuse | None:
        """Map a message, or do with it what the schedule says."""
        broker, row = self._broker, self._broker.row_of(message)
        fate, times = broker.fates.get(row, (None, 0))
        message.headers.clear()  # what it does to its message has no effect
        if fate == "raises" and broker.raised[row] < times:
            broker.raised[row] += 1
            self._note(row, "Raised")
            raise ValueError
        broker.history.mapped.setdefault((self._publisher, message.topic), broker.world.now)
        if fate == "skips":
            self._note(row, "Skipped")
            return None
        if fate == "refuses":
            self._note(row, "Refused")
            return Refuse("never")
        return WireForm(wire_payload(row), "text/plain")

    def _note(self, row: RowId, outcome: str) -> None:
        broker = self._broker
        broker.history.counts[f"map {outcome.lower()}"] += 1
        broker.history.answers.append(Answered(broker.world.now, row, self._publisher, outcome))
