"""Probes of database and broker, every 5 seconds, next to the relay."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import anyio
import psycopg

from dsql_outbox.observability.facts import BacklogAge, BrokerProbed, Fact, LifeJobs, StuckCounts
from dsql_outbox.observability.hooks import Hook, emit, skips_successes
from dsql_outbox.observability.otel.metrics import target_metrics
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.failure import CONFLICTS, FailureKind, schema_defect
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.outbox.unit_of_work.budget import AT_ONCE
from dsql_outbox.outbox.unit_of_work.lasting import LastingConnection
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.oldest_look import HEAD_POSITION, OldestLook
from dsql_outbox.schema.target_rows import metric_name

from .health import OK, Health
from .status import JobsStatus

if TYPE_CHECKING:
    from dsql_outbox.publisher.sinks.port import Outcome, Sink

logger = logging.getLogger("dsql_outbox")

EVERY: Final = 5.0  # seconds between two probes
_LONGEST: Final = 3.0  # seconds that a probe may take
_FRESH: Final = 1.0  # seconds for which the state of the database is known
_NOTHING_SINCE: Final = (
    1 << 63
) - 1  # a position after every message: the tables are asked, no row
COUNT_EVERY: Final = 30.0  # seconds between two counts of the messages that are stuck
_COUNTED: Final = 1_000  # rows at which a count stops


class DatabaseProbe:
    """Asks the database, on a connection of its own, and for at most 3 seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # A role without the right gets an answer, which is all that the probe asks for.
        keeps = CONFLICTS | {FailureKind.FORBIDDEN}
        self._connection = LastingConnection(database, timeout=_LONGEST, keeps=keeps)
        self._one_at_a_time = anyio.Lock()
        self._state = ""
        self._known_until = -math.inf

    async def state(self) -> str:
        """Return ``ok``, or the reason why the database cannot be used. Known for a second.

        So many requests for the state cost the database one statement per second.
        """
        async with self._one_at_a_time:
            if monotonic() >= self._known_until:
                self._state = await self._ask()
                self._known_until = monotonic() + _FRESH
            return self._state

    async def _ask(self) -> str:
        try:
            await self.rows("backlog_age", {"target": None, "since": _NOTHING_SINCE})
        except Exception as error:  # noqa: BLE001 - each error is a state
            return state_of_failure(error)
        return OK

    async def rows(
        self, name: str, parameters: Mapping[str, object], **literals: int
    ) -> Sequence[Sequence[Any]]:
        """Return the rows of a statement."""
        query = statement(name, self._database.schema, **literals)

        async def ask(connection: AsyncConnection) -> Sequence[Sequence[Any]]:
            return await (await connection.execute(query, parameters)).fetchall()

        return await AT_ONCE.run_async(partial(self._connection.use, ask))

    @property
    def accepts_writes(self) -> bool:
        """Whether the server that answered last does not say that it accepts no writes."""
        current = self._connection.current
        return current is None or current.accepts_writes

    def close(self) -> None:
        """Close the connection. The next question opens another one."""
        self._connection.drop()


def state_of_failure(error: Exception) -> str:
    """Return the state of a database that raised this error."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return OK  # it answers; only the age of the backlog stays unknown
    return schema_defect(error) or "cannot be reached"


class HealthProbe:
    """Probes database and broker; writes results to `health`, and gives facts to `hooks`.

    For the database it reads the age of the oldest message in seconds, which is the cheapest
    statement that needs the tables. Every 30 s it also counts dead letters and failures, each
    up to 1,000, and reads what the jobs that change stored events have done. The probe has its
    own connection. For the broker it publishes an empty batch, which every sink must accept; a
    sink raises `SinkUnavailable` when its broker is out of reach. It looks at the messages of
    one `target`. The global meter provider gets these facts
    too, as those of a `Publisher`.
    """

    def __init__(
        self,
        database: Database,
        health: Health,
        hooks: Sequence[Hook] = (),
        *,
        target: str = DEFAULT_TARGET,
    ) -> None:
        self._database = DatabaseProbe(database)
        self._health = health
        self._of_target = {"target": target}
        self._hooks = (target_metrics(metric_name(target)), *hooks)
        self._look = OldestLook()
        self._sink: Sink | None = None
        self._ask_now = anyio.Event()
        self._count_at = 0.0
        self._refused: set[str] = set()
        self.oldest_seconds = 0.0
        """How long the oldest message has waited; 0 if none waits, or before the first look."""

    def watch(self, sink: "Sink | None") -> None:
        """Probe `sink` from now on, and once immediately; None means not connected."""
        self._sink = sink
        self._ask_now.set()

    async def run(self) -> None:
        """Probe until cancelled. Every failure is a result, so this never raises."""
        try:
            while True:
                self._ask_now = anyio.Event()
                async with anyio.create_task_group() as group:
                    group.start_soon(self._ask_database)
                    group.start_soon(self._ask_broker)
                with anyio.move_on_after(EVERY):
                    await self._ask_now.wait()
        finally:
            self._database.close()

    async def _ask_database(self) -> None:
        try:
            rows = await self._oldest()
        except Exception as error:  # noqa: BLE001 - a failed probe must not end the relay
            self._health.database = state_of_failure(error)
        else:
            self._health.database = OK if self._database.accepts_writes else "accepts no writes"
            shard, age = rows[0][:2] if rows else (None, 0.0)
            self.oldest_seconds = max(0.0, age)
            emit(self._hooks, BacklogAge(self.oldest_seconds, shard, math.inf))
            await self._count()

    async def _oldest(self) -> Sequence[Sequence[Any]]:
        """Look for the oldest message; once more if a look from the head has taken too long."""
        look, began = self._look, monotonic()
        since = look.since(began)
        try:
            rows = await self._database.rows("backlog_age", {**self._of_target, "since": since})
        except psycopg.Error:
            look.note_failure(since, began=began, now=monotonic())
            if since != HEAD_POSITION or look.since(monotonic()) == HEAD_POSITION:
                raise
            return await self._oldest()
        look.note(since, rows[0][2] if rows else None, began=began, now=monotonic())
        return rows

    async def _count(self) -> None:
        """Count the messages that are stuck, and what jobs have done, if that is due."""
        if monotonic() < self._count_at or all(map(skips_successes, self._hooks)):
            return
        self._count_at = monotonic() + COUNT_EVERY
        await self._tell("stuck_counts", StuckCounts, limit=_COUNTED)
        await self._tell("status_jobs", _life_jobs)

    async def _tell(self, name: str, fact: Callable[..., Fact], **literals: int) -> None:
        """Give the hooks a row of a statement as a fact; its failures say nothing of health."""
        if name in self._refused:
            return
        try:
            rows = await self._database.rows(name, self._of_target, **literals)
        except psycopg.errors.InsufficientPrivilege:
            self._refused.add(name)  # the role lacks the right, so stop asking
        except Exception as error:  # noqa: BLE001 - a failed count must not end the relay
            logger.debug("Probe could not run %s: %s", name, error_line(error))
        else:
            for row in rows:
                emit(self._hooks, fact(*row))

    async def _ask_broker(self) -> None:
        self._health.broker = await _state_of(self._sink)
        emit(self._hooks, BrokerProbed(reached=self._health.broker == OK))


def _life_jobs(*row: Any) -> LifeJobs:
    found = JobsStatus(*row)
    return LifeJobs(found.erased, found.forgotten, found.forgotten_seconds)


async def _state_of(sink: "Sink | None") -> str:
    """Ask the broker by publishing nothing; OK or the reason."""
    if sink is None:
        return "not connected yet"
    try:
        with anyio.fail_after(_LONGEST):
            await sink.publish((), _no_answer)
    except SinkUnavailable:
        return "cannot be reached"
    except TimeoutError:
        return f"gave no answer within {_LONGEST:g} s"
    except Exception as error:  # noqa: BLE001 - a failed probe must not end the relay
        return f"failed: {type(error).__name__}"
    return OK


def _no_answer(_index: int, _outcome: "Outcome") -> None:
    """Take no answer, since no message is published."""
