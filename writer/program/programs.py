"""The programs of a writer: one for each of its methods. No I/O."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar

import psycopg

from dsql_outbox.outbox.arguments import require_seconds
from dsql_outbox.outbox.database.exchange import Row
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.errors import StaleVersion, WriterClosed
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.failure import FailureKind, kind_of, refuses_form
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.sessions.caller_session import CallerSession
from dsql_outbox.outbox.unit_of_work.budget import Spending, retry
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Program, Query
from dsql_outbox.outbox.unit_of_work.run_transaction import Sessions
from dsql_outbox.outbox.unit_of_work.turns import EntityKey, Turns
from dsql_outbox.outbox.unit_of_work.work import settle
from dsql_outbox.writer.attempt.acts import Acts, OwnConnection, find, learn_layout
from dsql_outbox.writer.attempt.entity_turn import EntityTurn, no_turn
from dsql_outbox.writer.attempt.event_write import EventWrite
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, WriteOutcome, pend
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Stored, StoredEntity, entity_of
from dsql_outbox.writer.statement.parameters import PreparedEvent
from dsql_outbox.writer.transact.append import Joined, translate_errors
from dsql_outbox.writer.transact.call import Call, Run, require_outermost

from .call_arguments import (
    entity_key,
    listed_events,
    listed_versions,
    require_on_duplicate,
    require_version,
)
from .housekeeping import Housekeeping
from .stream import EntityStream
from .write_many import Many

T = TypeVar("T")


class Programs:
    """The programs of one writer."""

    def __init__(self, core: Core, connections: Lender[Any], ring: Callable[[], None]) -> None:
        self._core = core
        self._ring = ring
        self.is_closed = False
        self._connections = connections
        self.housekeeping = Housekeeping(core, connections)
        self.forget_turns()
        call_in_children(self.forget_turns)

    def forget_turns(self) -> None:
        """Forget the calls that took turns: they will not end, as after a fork."""
        self._turns = Turns()

    def open_gate(self, method: str, timeout: float | None) -> Gate:
        """Begin a call of a method. Raises unless the call may begin here and now."""
        self.require_open()
        require_outermost(self._core, method)
        require_seconds("timeout", timeout)
        return Gate(self._core.settings.timeout if timeout is None else timeout)

    def require_open(self) -> None:
        """Raise `WriterClosed` after the writer was closed."""
        if self.is_closed:
            raise WriterClosed

    def write(
        self,
        event: EventSource,
        on_duplicate: OnDuplicate,
        expected_version: int | None,
        timeout: float | None,
    ) -> Program[Receipt]:
        """Perform `Writer.write`."""
        gate = self.open_gate("write", timeout)
        require_on_duplicate(on_duplicate)
        require_version(expected_version)
        pending = pend(
            self._core, event, gate, on_duplicate=on_duplicate, expected_version=expected_version
        )
        turn = EntityTurn(self._turns, gate)
        # With a counted budget the schedule is the user's, so nobody takes turns.
        takes_turns = self._core.settings.max_retries is None
        try:
            with pending.scopes:
                if takes_turns and self._turns.has_conflicted_call(pending.entities):
                    yield from _take(turn, pending.entities, pending)
                acts = Acts(self._core, self._connections, gate)
                yield from self.write_batch([pending], acts, turn if takes_turns else None)
        finally:
            turn.leave()
        return pending.receipt()

    def write_many(
        self,
        events: Iterable[EventSource],
        on_duplicate: OnDuplicate,
        expected_versions: Iterable[int | None] | None,
        timeout: float | None,
    ) -> Program[list[WriteOutcome]]:
        """Perform `Writer.write_many`."""
        gate = self.open_gate("write_many", timeout)
        require_on_duplicate(on_duplicate)
        listed = listed_events(events)
        versions = listed_versions(expected_versions, len(listed))
        with Many(self._core, gate, on_duplicate, listed, versions) as many:
            acts = Acts(self._core, self._connections, gate, many.look_ahead)
            for batch in many.batches():
                if timeout is None:
                    many.give_time(batch, self._core.settings.timeout)
                yield from self.write_batch(batch, acts)
        return many.outcomes

    def write_batch(
        self, batch: Sequence[Pending], acts: Acts, turn: EntityTurn | None = None
    ) -> Program[None]:
        """Write events together until each is settled. A `write` has a `turn`."""
        yield from settle(EventWrite(batch, acts, turn))
        yield from self._end(acts.gate)

    def call(
        self,
        gate: Gate,
        function: Callable[[Run[T], Any], Any],
        on_duplicate: OnDuplicate,
        sessions: Sessions | None,
    ) -> Call[T]:
        """Return a call of `transact` for a function of a run and its connection or session."""
        require_on_duplicate(on_duplicate)
        acts = Acts(self._core, self._connections, gate)
        return Call(self._core, acts, function, on_duplicate=on_duplicate, sessions=sessions)

    def transact(
        self, call: Call[Any], gate: Gate, entities: Collection[EntityKey] = ()
    ) -> Program[None]:
        """Run the function of a call until the call is settled, in the turn of its entities."""
        turn = EntityTurn(self._turns, gate, has_conflicted=lambda: call.conflicts > 0)
        try:
            if entities:
                yield from _take(turn, entities, call)
            yield from settle(call)
        finally:
            turn.leave()
        yield from self._end(gate)

    def _end(self, gate: Gate) -> Program[None]:
        """Do what follows a settled call. The connection of the call is on the shelf again."""
        if gate.wrote:
            self._ring()
        yield from self.housekeeping.after(gate)

    def append(
        self,
        run: Run[Any],
        session: CallerSession,
        event: EventSource,
        expected_version: int | None,
    ) -> Program[Receipt]:
        """Perform `Transaction.append`, and `Writer.append_to` in a run."""
        require_version(expected_version)
        before = run.status
        prepared = run.prepare_append(event, expected_version, before)
        yield from session.join()
        with run.record_append(prepared.event.id, before):
            was_plain = self._core.statements.is_plain
            try:
                stored = yield from self._append(session, prepared)
            except Exception as error:
                run.is_refused = refuses_form(error) and not was_plain
                raise
        return run.receipt(prepared, stored)

    def append_to(
        self,
        session: CallerSession,
        event: EventSource,
        expected_version: int | None,
    ) -> Program[Receipt]:
        """Perform `Writer.append_to`."""
        self.require_open()
        require_version(expected_version)
        yield from session.join()
        joined = Joined(self._core, event, expected_version)
        with joined.scopes:
            with translate_errors(self._core, joined.prepared):
                if not self._core.statements.shards:
                    learn = partial(learn_layout, self._core.statements)
                    yield from self._connections.lend(learn)
            try:
                stored = yield from self._append(session, joined.prepared)
            except Exception as error:
                yield from self._answer_error(joined, error)
                raise
            if self._core.settings.doorbell:
                yield from session.after_commit(self._ring)
            return joined.receipt(stored)

    def _answer_error(self, joined: Joined, error: Exception) -> Program[None]:
        """Ask on a connection of the writer what an error of the caller's driver is about.

        Raises `DuplicateEvent` if the event is stored. A form that was refused is for a next try.
        """
        if refuses_form(error):
            gate = Gate(self._core.settings.timeout)
            yield from Acts(self._core, self._connections, gate).prove_form()
        elif isinstance(error, StaleVersion) or kind_of(error) is FailureKind.COLLISION:
            with suppress(psycopg.Error):  # without a look-up, the driver's error is raised
                look_up = partial(find, self._core, [joined.prepared.event.id])
                joined.refuse((yield from self._connections.lend(look_up)), error)

    def read_page(self, stream: EntityStream) -> Program[None]:
        """Read the next page of a stream."""
        self.require_open()
        stream.take((yield from self._read(*stream.query)))

    def entity(self, entity_type: str, entity_id: str) -> Program[StoredEntity | None]:
        """Perform `Writer.entity`."""
        self.require_open()
        key = entity_key(entity_type, entity_id)
        return entity_of(key, (yield from self._read(self._core.entity, key)))

    def entity_inside(
        self, run: Run[Any], connection: OwnConnection, entity_type: str, entity_id: str
    ) -> Program[StoredEntity | None]:
        """Perform `Transaction.entity`."""
        run.require_running("entity", connection.info.transaction_status)
        key = entity_key(entity_type, entity_id)
        return entity_of(key, (yield Query(connection, self._core.entity, key)))

    def _read(self, query: bytes, parameters: Mapping[str, object]) -> Program[Sequence[Row]]:
        """Return the rows of a query, which is retried as a write is. It is never in doubt."""
        is_fresh = chain([False], repeat(True))  # of each attempt
        deadline = Gate(self._core.settings.timeout).deadline

        def ask(connection: OwnConnection) -> Program[Sequence[Row]]:
            rows: Sequence[Row] = yield Query(connection, query, parameters)
            return rows

        def attempt() -> Program[Sequence[Row]]:
            return self._connections.lend(ask, fresh=next(is_fresh), deadline=deadline)

        try:
            return (yield from retry(attempt, Spending(self._core.budgets, deadline)))
        except Exception as error:
            translated = self._core.translate(error)
            if translated is error:
                raise
            raise translated from error

    def _append(self, session: CallerSession, prepared: PreparedEvent) -> Program[Stored]:
        """Write the event in the session's transaction."""
        with translate_errors(self._core, prepared, session):
            rows = yield from session.run(self._core.statements.inside([prepared]))
        return self._core.statements.read_answer([prepared], rows)[0]


def _take(
    turn: EntityTurn, entities: Collection[EntityKey], call: Pending | Call[Any]
) -> Program[None]:
    """Wait for the turn of a call before its first attempt. Settle it if no turn comes in time."""
    try:
        came = yield from turn.take(entities)
    except BaseException as error:  # no attempt has begun that would report it
        call.abandon(error)
        raise
    if not came:
        call.fail(no_turn())
