"""A database in memory for the steps of a write: it commits, refuses, loses and delays on demand.

It does to a batch what the statements do, and nothing else: all of it or none.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import psycopg
from psycopg import errors

from dsql_outbox.observability.facts import AttemptEnded, Fact, WriteStarted
from dsql_outbox.observability.hooks import Scopes
from dsql_outbox.outbox import Database, Entity, Event, Touched
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.failure import DatabaseFailure, classify
from dsql_outbox.outbox.unit_of_work.primitives import Program, Sleep
from dsql_outbox.outbox.unit_of_work.work import settle
from dsql_outbox.writer import WriterSettings
from dsql_outbox.writer.attempt.acts import Acts
from dsql_outbox.writer.attempt.event_write import EventWrite
from dsql_outbox.writer.attempt.journal import Journal
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, still_open
from dsql_outbox.writer.budgets import budgets_of
from dsql_outbox.writer.statement.answers import Found, Stored
from dsql_outbox.writer.statement.parameters import prepare


class Attempt(NamedTuple):
    """A step: write these events in one transaction, on a new connection if `fresh`."""

    batch: Sequence[Pending]
    fresh: bool


class LookUp(NamedTuple):
    """A step: read what is stored under these ids."""

    ids: Sequence[UUID]


class Committed(NamedTuple):
    """The result of an attempt that committed: what each event got, in order."""

    stored: Sequence[Stored]


class Present(NamedTuple):
    """The result of a look-up."""

    found: Mapping[UUID, Found]


class Failed(NamedTuple):
    """The result of a step that raised. With `sent`, a write may have reached the server."""

    error: Exception
    sent: bool = False


Wait = Sleep
Step = Attempt | LookUp | Wait
Result = Committed | Present | Failed | None
Steps = Generator[Any, Any, None]


class Asking(Acts):
    """Yields each act as a step, whose result the test gives. Nobody hears its reports."""

    def __init__(self) -> None:
        pass

    def write(
        self, batch: Sequence[Pending], *, fresh: bool
    ) -> Program[Sequence[Stored] | DatabaseFailure]:
        result = yield Attempt(batch, fresh)  # type: ignore[misc]
        return _failure(result) or result.stored

    def look_up(self, ids: Iterable[UUID]) -> Program[Mapping[UUID, Found] | DatabaseFailure]:
        result = yield LookUp([*ids])  # type: ignore[misc]
        return _failure(result) or result.found

    def tell_stored(self, *_: object) -> None:
        """Nobody hears of it."""

    def tell_transaction_end(self, *_: object) -> None:
        pass


def _failure(result: Result) -> DatabaseFailure | None:
    return classify(result.error, sent=result.sent) if isinstance(result, Failed) else None


def write_steps(batch: Sequence[Pending], clock: Callable[[], float]) -> Steps:
    """The steps of the write of a batch, from its first attempt until every event is settled."""
    return settle(EventWrite(batch, Asking(), clock=clock))


SETTINGS: Final = WriterSettings.origin()
DATABASE: Final = Database("postgresql://writer:secret@db.example/shop")
FAULTY: Final = "faulty"
"""The name of the events that break a constraint."""

Key = tuple[str, str]


def pend(
    *entities: str,
    event_id: UUID | None = None,
    name: str = "Car Sold",
    expected: int | None = None,
    on_duplicate: OnDuplicate = "error",
    settings: WriterSettings = SETTINGS,
    deadline: float | None = None,
    facts: list[Fact] | None = None,
) -> Pending:
    """A call to write one event that touches cars of these ids."""
    touched = [Entity("Car", entity) for entity in entities or (str(uuid4()),)]
    event = parse_event(Event.new("CarSold", touched, name=name, id=event_id))
    kept: list[Fact] = [] if facts is None else facts
    started = WriteStarted(event.id, event.name, event.type, "events.CarSold", len(touched))
    return Pending(
        prepare(event, uuid4().hex, "events.CarSold", "/test", {}, expected_version=expected),
        Journal(
            event.id,
            Scopes([kept.append], started),
            DATABASE,
            budgets_of(settings),
            deadline,
            events=(event,),
            random=lambda: 0.0,
        ),
        on_duplicate=on_duplicate,
    )


class Refused(Exception):
    """The database's answer is an error."""

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Server:
    """What is stored, and what is still on its way."""

    found: dict[UUID, Found] = field(default_factory=dict)
    versions: Counter[Key] = field(default_factory=Counter)
    delayed: list[list[Pending]] = field(default_factory=list)
    attempts: int = 0
    meets_first: bool = False
    """Which of several errors a server meets: no order is promised."""

    def write(self, batch: Sequence[Pending]) -> Committed:
        """Run the statement; raises `Refused`, and then nothing is stored."""
        self.attempts += 1
        versions, found, stored = Counter(self.versions), dict(self.found), list[Stored]()
        wrong: list[psycopg.Error] = []
        for pending in batch:
            event = pending.prepared.event
            keys = [(touch.entity_type, touch.entity_id) for touch in event.touches]
            expected = pending.prepared.expected_version
            if expected is not None and versions[keys[0]] != expected:
                wrong.append(_stale(event.id, versions[keys[0]]))
            versions.update(keys)
            numbers = tuple(versions[key] for key in keys)
            if event.name == FAULTY:
                wrong.append(errors.CheckViolation("a constraint"))
            elif event.id in found:
                wrong.append(errors.UniqueViolation("business_events_pkey"))
            touched = tuple(Touched(*key, versions[key]) for key in keys)
            position = len(found) + 1
            found[event.id] = Found(
                pending.prepared.write_id, event.fingerprint, False, position, touched
            )
            stored.append(Stored(position, numbers))
        if wrong:
            raise Refused(wrong[0 if self.meets_first else -1])
        self.found, self.versions = found, versions
        return Committed(stored)

    def read(self, ids: Sequence[UUID]) -> Present:
        """Run the look-up."""
        return Present({i: self.found[i] for i in ids if i in self.found})

    def arrive(self) -> None:
        """The attempt that was delayed longest reaches the server; nobody hears the answer."""
        if self.delayed:
            self.try_write(self.delayed.pop(0))

    def try_write(self, batch: Sequence[Pending]) -> Result:
        """Run the statement and answer it."""
        try:
            return self.write(batch)
        except Refused as refused:
            return Failed(refused.error, sent=True)


def _stale(event_id: UUID, actual: int) -> psycopg.Error:
    text = f'invalid input syntax for type bigint: "stale {event_id} {actual}"'
    return errors.InvalidTextRepresentation(text)


def send(batch: Sequence[Pending]) -> None:
    """Mark what the gate admits."""
    for pending in batch:
        pending.is_sent = True


def conflict() -> Failed:
    """Another transaction was faster."""
    return Failed(errors.SerializationFailure("change conflicts: (OC000)"), sent=True)


def schema_change() -> Failed:
    """A table was changed, which each session of Aurora DSQL is told once."""
    text = "schema has been updated by another transaction (OC001)"
    return Failed(errors.SerializationFailure(text), sent=True)


def lost() -> Failed:
    """The connection died after the write was sent."""
    return Failed(psycopg.OperationalError("server closed the connection unexpectedly"), sent=True)


def unreachable() -> Failed:
    """No connection."""
    return Failed(psycopg.OperationalError("Connection refused"), sent=False)


@dataclass
class Run:
    """Drives steps against a server; `misfortunes` come one a step, then all goes well."""

    server: Server
    misfortunes: list[str] = field(default_factory=list)
    now: float = 0.0
    steps: list[Step] = field(default_factory=list)
    others: Callable[[Server], None] | None = None
    before: Callable[[int], None] | None = None
    """Called with the number of each step, from 0, before it is done."""

    def clock(self) -> float:
        """The time."""
        return self.now

    def __call__(self, steps: Steps) -> None:
        """Drive to the end, which must come."""
        result: Result = None
        for _ in range(3_000):
            try:
                step = steps.send(result)
            except StopIteration:
                return
            if self.before is not None:
                self.before(len(self.steps))
            self.steps.append(step)
            result = self.do(step)
        raise AssertionError("the steps do not end")

    def count(self, kind: type[Step]) -> int:
        """How many steps of a kind there were."""
        return sum(isinstance(step, kind) for step in self.steps)

    def waits(self) -> list[float]:
        """Seconds of each wait."""
        return [step.seconds for step in self.steps if isinstance(step, Wait)]

    def do(self, step: Step) -> Result:
        """One step."""
        if isinstance(step, Wait):
            self.now += step.seconds
            return None
        misfortune = self.misfortunes.pop(0) if self.misfortunes else "none"
        if misfortune == "arrival":
            self.server.arrive()
        if misfortune == "another" and self.others is not None:
            self.others(self.server)
        if isinstance(step, LookUp):
            return self._look_up(step, misfortune)
        return self._attempt(step, misfortune)

    def _look_up(self, step: LookUp, misfortune: str) -> Result:
        if misfortune in {"conflict", "lost before", "lost after", "delay", "unreachable"}:
            return unreachable()
        if misfortune == "fatal":
            return Failed(errors.InsufficientPrivilege("business_events"))
        return self.server.read(step.ids)

    def _attempt(self, step: Attempt, misfortune: str) -> Result:
        batch = still_open(step.batch)
        if not batch:
            return Committed(())
        if misfortune != "unreachable":
            send(batch)
        if misfortune in _ANSWERS:
            return _ANSWERS[misfortune]()
        if misfortune == "delay":
            self.server.delayed.append(batch)
            return lost()
        result = self.server.try_write(batch)
        return lost() if misfortune == "lost after" else result


_ANSWERS: Final[dict[str, Callable[[], Failed]]] = {
    "conflict": conflict,
    "schema change": schema_change,
    "unreachable": unreachable,
    "lost before": lost,
    "fatal": lambda: Failed(errors.SyntaxError("SELEC"), sent=True),
    "collision": lambda: Failed(errors.UniqueViolation("entities_pkey"), sent=True),
}
"""Misfortunes of an attempt that the server never sees."""


def run(
    batch: Sequence[Pending], *misfortunes: str, server: Server | None = None, now: float = 0.0
) -> Run:
    """Write a batch to a server that suffers a misfortune a step."""
    done = Run(server or Server(), list(misfortunes), now)
    done(write_steps(batch, done.clock))
    return done


def answer(steps: Steps, *results: Result) -> list[Step]:
    """Give each attempt and look-up its answer, each wait its passing."""
    left, seen, result = list(results), list[Step](), None
    while True:
        try:
            step = steps.send(result)
        except StopIteration:
            assert left == []
            return seen
        seen.append(step)
        result = None if isinstance(step, Wait) else left.pop(0)
        if isinstance(step, Attempt) and not (isinstance(result, Failed) and not result.sent):
            send(step.batch)


def never() -> float:
    """A clock that stands."""
    return 0.0


def outcomes_of(facts: Sequence[Fact]) -> list[str]:
    return [fact.outcome for fact in facts if isinstance(fact, AttemptEnded)]


def kinds(steps: Sequence[Step]) -> list[type[Step]]:
    return [type(step) for step in steps]
