"""The methods of both writers: their arguments and promises."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from typing import Any

from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.writer.attempt.pending import OnDuplicate, WriteOutcome
from dsql_outbox.writer.program.stream import StoredEvent
from dsql_outbox.writer.statement.answers import StoredEntity


class WriterBase(ABC):
    """The interface of `Writer` and `AsyncWriter`. The methods of `AsyncWriter` are awaited."""

    @abstractmethod
    def write(
        self,
        event: EventSource,
        *,
        on_duplicate: OnDuplicate = "error",
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Receipt | Awaitable[Receipt]:
        """Store one event. The receipt proves that it is stored exactly once.

        `event` is an `Event`, a mapping, or JSON as text or bytes. JSON is stored
        unchanged. An `Event` and a `JsonEvent` may have a topic and headers of their own.
        `timeout` is the limit of the call in seconds, waits included.

        After a conflict the call waits for its turn behind earlier calls of this writer for the
        same entities, and later calls wait behind it. With ``WriterSettings(max_retries=..)``
        there are no turns.

        With ``on_duplicate="return"``, the call returns a receipt with status
        ``duplicate`` if the id is stored with equal content, ``savedDate`` ignored. For
        a stored id with other content it always raises `DuplicateEvent`.

        `expected_version` is the version that the subject must have before the
        event, or 0 if the subject must not exist.

        Raises, before anything is sent, `InvalidEvent` or `EventTooLarge`. Raises
        `DuplicateEvent`, `StaleVersion`, `OutcomeUnknown`, `SchemaError` if the tables
        are missing, or `MissingRight`. If the event is not stored for any other reason,
        raises the last exception of the driver, unchanged.
        """

    @abstractmethod
    def write_many(
        self,
        events: Iterable[EventSource],
        *,
        on_duplicate: OnDuplicate = "error",
        expected_versions: Iterable[int | None] | None = None,
        timeout: float | None = None,
    ) -> list[WriteOutcome] | Awaitable[list[WriteOutcome]]:
        """Store many events in few transactions. Return one outcome per event, in order.

        An outcome is a receipt, or the exception that `write` would have raised. The list and
        the arguments are checked before anything is sent. Each event is checked before its
        transaction is sent, while the server works on the one before: change none until the
        call ends. Each transaction is kept within the limits of the database. If single events
        make a transaction fail, it is split so that the other events are stored. Events of one
        subject keep their order.

        If two events have the same id, the second is a duplicate if the first was
        stored; else the second is stored. `expected_versions` has one entry per event.
        `timeout` is the limit of the whole call in seconds.

        Raises `ValueError` if `expected_versions` has another length than `events`.
        """

    @abstractmethod
    def transact(
        self,
        function: Any,
        *,
        entities: Iterable[tuple[str, str]] = (),
        on_duplicate: Any = "error",
        timeout: float | None = None,
    ) -> Any:
        """Run `function` in a transaction, commit it, and return the result of `function`.

        The argument of `function` is the transaction. Use its `connection` for your own
        statements and its `append` for events. After a conflict or a lost connection,
        `function` runs again on another connection. So it must have no other side
        effects. `timeout` is the limit of the call in seconds, all runs included.

        With `entities`, as in ``[("Order", "ORDER-1")]``, calls of this writer that name the
        same entity run one after the other, in the order of the calls. So they do not conflict
        with each other. The wait for the turn counts against `timeout`.

        If the first event that `function` appends is stored already, with the same content,
        ``on_duplicate="return"`` returns its receipt, with the status ``duplicate``. The other
        statements of `function` are rolled back, because the first call has done that work.

        An exception of `function` itself ends the call after a rollback, and is raised.
        Raises `DuplicateEvent`, `StaleVersion`, `TransactionMisused`, or the last
        exception of the driver, unchanged.

        If the connection was lost at the commit, `function` runs again if its first event is
        not stored, and must append that event first. So `Event.new` without `id` gives the n-th
        event of each run of `function` the same id. Raises `OutcomeUnknown` if it does not, or
        if the lost run appended no event. `OutcomeUnknown` also takes the
        place of any error, those of `function` included, that ends the call while the lost run
        may have been committed.
        """

    @abstractmethod
    def append_to(
        self, connection: Any, event: EventSource, *, expected_version: int | None = None
    ) -> Receipt | Awaitable[Receipt]:
        """Write one event in your own transaction, which you commit and retry.

        `connection` is a connection of psycopg 3 or psycopg2, a Session or Connection of
        SQLAlchemy 2 on one of these, or Django's connection inside `atomic`. `AsyncWriter`
        takes an AsyncConnection of psycopg 3, a connection of asyncpg, or an AsyncSession or
        AsyncConnection of SQLAlchemy on one of these.

        The receipt is valid after your commit. The call retries nothing. It takes
        one round trip. The writer's first use also asks the database for its shards and
        the form of a write, on a connection of the writer. A stored id is looked up
        on such a connection too.

        Raises `InvalidEvent`, `DuplicateEvent`, `StaleVersion`, `SchemaError`, `MissingRight`,
        or the driver's exceptions, unchanged. After any error your transaction has failed: it
        can only be rolled back, so that no row is stored without its event.

        Raises `TransactionMisused` if no transaction is open and the connection would commit
        the event on its own, or if the session uses several connections, and `TypeError` for
        another driver.
        """

    @abstractmethod
    def stream(
        self, entity_type: str, entity_id: str, *, after: int = 0
    ) -> Iterator[StoredEvent] | AsyncIterator[StoredEvent]:
        """Read the events of an entity with a version above `after`, in version order.

        Events are read in pages, so memory is bounded and no connection is held between
        two pages. Events that are stored during the reading are read too. A failed page
        is retried as a write is. After that, raises the driver's exception.
        """

    @abstractmethod
    def entity(
        self, entity_type: str, entity_id: str
    ) -> StoredEntity | Awaitable[StoredEntity | None] | None:
        """Read the current version and attributes of an entity. None if no event has touched it.

        Another call may change the entity afterwards. To decide by its state, write the
        event with its version as `expected_version`. The read is retried as a write is.
        After that, raises the driver's exception.
        """

    @abstractmethod
    def ring(self) -> None:
        """Ring the doorbell of the publishers, after a commit of your own. It is never awaited.

        The writer rings by itself after `write`, `write_many` and `transact`, and after the commit
        of a Session of SQLAlchemy or of Django's `atomic` in which `append_to` wrote. After
        `append_to` in another session, call this when you have committed.

        It is a hint. It waits for nothing, and its errors are logged. Without
        ``WriterSettings(doorbell=True)`` it does nothing.
        """

    @abstractmethod
    def close(self) -> Awaitable[None] | None:
        """Close the writer. A call that is in flight ends as it would have ended.

        `AsyncWriter` waits for the coalesced writes. Connections that are not in use are closed
        then, the others when their calls end. Later calls raise `WriterClosed`.
        """
