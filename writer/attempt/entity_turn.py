"""The turn of one call among the calls of a writer that name the same entities. No I/O."""

from collections.abc import Callable, Collection

import psycopg

from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Program, TakeTurn
from dsql_outbox.outbox.unit_of_work.turns import EntityKey, Turn, Turns


class EntityTurn:
    """The turn of a `write` after its first conflict, or of a `transact` that names entities.

    A call that has the turn keeps it until it ends, waits included. `leave` ends it in any case.

    The calls that follow stand behind a `write` that met a conflict from their start, or each
    would meet it once, and might win. A call that stands behind one counts as another that lost:
    it would have met it. Without conflicts no `write` waits, not for a `transact` either.
    """

    def __init__(
        self, turns: Turns, gate: Gate, *, has_conflicted: Callable[[], bool] = lambda: True
    ) -> None:
        self._turns = turns
        self._gate = gate
        self._has_conflicted = has_conflicted
        self._turn: Turn | None = None

    def take(self, entities: Collection[EntityKey]) -> Program[bool]:
        """Wait for the turn, once. Return whether it came before the deadline of the call."""
        if self._turn is not None:
            return True
        self._turn = Turn(entities, self._has_conflicted)
        return bool((yield TakeTurn(self._turns, self._turn, self._gate.deadline)))

    def leave(self) -> None:
        """Let the next call have its turn."""
        if self._turn is not None:
            self._turns.leave(self._turn)


def no_turn() -> psycopg.OperationalError:
    """The error of a call whose turn did not come in time."""
    return psycopg.OperationalError(
        "nothing was sent: other calls of this writer that name the same entities "
        "took until the deadline of the call (timeout)"
    )
