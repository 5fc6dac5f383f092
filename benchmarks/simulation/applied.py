"""The function of a read model, and the connection that it gets: what it does wrong, and when."""

from typing import Final

import anyio
import psycopg

from dsql_outbox.outbox import Message, TransactionMisused
from dsql_outbox.schema.session import CallTimedOut

from .broker import Broker
from .history import Sent

FOREVER: Final = 1e6


class AppliedHandle:
    """The connection of one call. `verdict` is the error that the function hid, or None."""

    verdict: Exception | None = None

    def fail(self) -> None:
        """Fail a statement, whose error the function catches."""
        self.verdict = psycopg.errors.CheckViolation("a statement of the function failed")

    def commit(self) -> None:
        """End the transaction."""
        self.verdict = TransactionMisused("the function ended the transaction")


class Function:
    """The function of the publishers of one process. It changes nothing but its transaction."""

    def __init__(self, broker: Broker, publisher: str) -> None:
        self._broker = broker
        self._publisher = publisher

    async def __call__(self, handle: AppliedHandle, message: Message) -> None:
        """Apply a message, or fail in the way of the schedule."""
        broker = self._broker
        row, epoch = broker.row_of(message), int(message.headers["leaseepoch"])
        sent = Sent(
            broker.world.now, row, self._publisher, epoch, message.attempt, message.dedupe_id
        )
        broker.history.sent.append(sent)
        await anyio.sleep(0.001)
        illness, times = broker.functions.get(row, (None, 0))
        if illness is None or broker.ills[row] >= times:
            return
        broker.ills[row] += 1
        broker.history.counts[f"function {illness}"] += 1
        match illness:
            case "raises":
                raise ValueError
            case "hangs":
                await anyio.sleep(FOREVER)
            case "swallows an error":
                handle.fail()
            case "ends the transaction":
                handle.commit()


async def error_of(call: object, handle: AppliedHandle, seconds: float) -> Exception | None:
    """Call a function as `SessionTransaction.call` does. Returns its error, also a hidden one."""
    try:
        with anyio.move_on_after(seconds) as scope:
            await call(handle)  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - whatever it raises fails the message
        return error
    return CallTimedOut(seconds) if scope.cancelled_caught else handle.verdict
