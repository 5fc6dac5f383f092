"""Random schedules: writers, their rivals, faults and limits of time, all from one seed.

What a schedule asks for comes from its seed; how its threads meet does not.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from time import monotonic
from typing import Any, Final
from uuid import UUID

from psycopg import sql
from tests.support.proxy.faults import Held
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until

from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    Event,
    OutcomeUnknown,
    Receipt,
    StaleVersion,
)

from .checked_tables import HANG_UP, Outcome, Tables
from .consumer_units import ConsumerCall, HandledBefore, message_id
from .poison_events import refuse_poison
from .schedule_calls import CALLS, Call, random_calls, run_call
from .session_units import OWN_ROWS, CutShort, LostConnection, ReturnedAnyway, Unit, Way
from .slow_openings import SlowOpenings

LOOK_UP: Final = "WHERE id = "
LAYOUT: Final = "AS shards"
COMMIT: Final = "COMMIT"
LONGEST_HELD: Final = 1.0
"""Seconds. The transaction of a held COMMIT has locks, for which calls without a timeout wait."""


@dataclass
class Tally:
    """What came out of schedules."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    """How the events of callers with sessions ended, by the way of their units."""
    points: Counter[str] = field(default_factory=Counter)
    """How often the writer came to each rare point, if somebody counts."""
    rows: int = 0
    mismatches: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count another's in."""
        self.outcomes += other.outcomes
        self.ways += other.ways
        self.points += other.points
        self.rows += other.rows
        self.mismatches += other.mismatches


def prepare_database(tables: Tables) -> None:
    """Let the database refuse some events by a constraint, and choke on others."""
    refuse_poison(tables)
    tables.execute(
        "ALTER TABLE outbox.business_events ADD CONSTRAINT no_faulty_event"
        " CHECK (event_name <> 'faulty')"
    )
    tables.execute(f"CREATE TABLE {OWN_ROWS} (saved bigint)")


def run_schedule(
    seed: int,
    proxy: SlowOpenings,
    tables: Tables,
    is_quiet_behind: Callable[[], bool] | None = None,
    ways: Sequence[Way] = (),
) -> Tally:
    """Run one schedule on empty tables and compare them with what the callers were told.

    Behind a pooler sessions outlive their clients: `is_quiet_behind` tells then whether
    nobody works any more. With `ways`, most callers have sessions of their own.
    """
    tables.execute("DELETE FROM outbox.business_events")
    tables.execute("DELETE FROM outbox.event_headers")
    tables.execute("DELETE FROM outbox.entities")
    tables.execute("DELETE FROM outbox.outbox")
    tables.execute("DELETE FROM outbox.inbox")
    tables.execute("DELETE FROM outbox.inbox_subjects")
    tables.execute(f"DELETE FROM {OWN_ROWS}")
    random = Random(seed)
    calls = random_calls(random, ways)
    isolation = random.choice(["read committed", "repeatable read"])
    database = Database(proxy.url, isolation=isolation, opens_per_second=100_000)  # type: ignore[arg-type]
    held = _set_faults(proxy, random)
    if ways:
        _set_faults_of_sessions(proxy, tables, Random(f"sessions {seed}"))
        _set_level(tables, isolation)
    proxy.delay = Random(f"delay {seed}").choice([0, 0, 0, 0, 0, 0.02, 0.06, 0.3])
    with ThreadPoolExecutor(CALLS) as threads:
        pending = [threads.submit(run_call, database, proxy.url, call) for call in calls]
        try:
            _attend(proxy, held, pending, random)
        except BaseException:  # of a call that does not end: its thread would be waited for
            proxy.heal()
            proxy.cut_all()
            raise
        results = [future.result() for future in pending]
    proxy.heal()
    proxy.delay = 0.0
    waiting = list(held)
    _release(waiting, random)
    proxy.cut_all()

    def is_quiet() -> bool:
        _release(waiting, random)  # one may have been on its way into the proxy
        return is_quiet_behind() if is_quiet_behind else tables.others() == 0

    wait_until(is_quiet, timeout=20.0)
    return _compare(seed, calls, results, tables)


# --- what is asked for -----------------------------------------------------------------


def _set_faults(proxy: PostgresProxy, random: Random) -> list[Held]:
    held: list[Held] = []
    faults = [
        partial(proxy.refuse, 1),
        partial(proxy.refuse, 2),
        partial(proxy.refuse, 1, sqlstate="40P01", message="deadlock detected"),
        partial(proxy.refuse, 1, sqlstate="23505", message="duplicate key"),
        partial(proxy.refuse, 1, sqlstate="57014", message="canceling statement"),
        partial(proxy.cut, "before"),
        partial(proxy.cut, "after_sent"),
        partial(proxy.cut, "after_commit"),
        partial(proxy.cut, "after_commit", reset=True),
        partial(proxy.cut, "mid_answer"),
        partial(proxy.cut, "before", matching=LOOK_UP),
        partial(proxy.refuse, 1, matching=LOOK_UP),
        lambda: held.append(proxy.hold()),
        partial(proxy.refuse, 1, at="commit"),
        partial(proxy.cut, "before", matching=COMMIT),
        partial(proxy.cut, "after_sent", matching=COMMIT),
        partial(proxy.cut, "after_commit", matching=COMMIT),
        lambda: held.append(proxy.hold(matching=COMMIT)),
    ]
    for _ in range(random.randrange(9)):
        random.choice(faults)()
    return held


def _set_level(tables: Tables, level: str) -> None:
    """Give new sessions of callers the isolation level of the writer."""
    connection = tables.connection
    text = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation TO {}")
    connection.execute(text.format(sql.Identifier(connection.info.dbname), sql.Literal(level)))


def _set_faults_of_sessions(proxy: PostgresProxy, tables: Tables, random: Random) -> None:
    """Let an operator end all sessions, and a writer's own connection fail beside a session."""

    def kill() -> None:
        tables.execute(HANG_UP)

    for _ in range(random.choice([0, 0, 1, 2])):
        proxy.before(kill, matching=random.choice([COMMIT, COMMIT, OWN_ROWS, "business_events"]))
    if random.random() < 0.3:
        proxy.cut("before", random.choice([1, 3]), matching=LAYOUT)


# --- while it runs ---------------------------------------------------------------------


def _attend(
    proxy: PostgresProxy,
    held: list[Held],
    pending: Sequence["Future[list[Outcome]]"],
    random: Random,
) -> None:
    """Cut off the callers of what is held, and let some of that go on while they try again."""
    waiting = list(held)
    kept: list[tuple[float, Held]] = []

    def is_over() -> bool:
        for one in list(waiting):
            with suppress(TimeoutError):
                one.arrived(0.001)
                waiting.remove(one)
                proxy.cut_all()
                if random.random() < 0.5:
                    _let_go(one)
                else:
                    kept.append((monotonic() + LONGEST_HELD, one))
        if kept and monotonic() > kept[0][0]:
            _let_go(kept.pop(0)[1])
        return all(future.done() for future in pending)

    try:
        wait_until(is_over, timeout=60.0)
    finally:
        for _, one in kept:  # or calls without a timeout would wait for its locks for ever
            _let_go(one)


def _release(held: list[Held], random: Random) -> None:
    """What is still held arrives after its caller was answered, or never."""
    for one in list(held):
        with suppress(TimeoutError):
            one.arrived(0.001)
            held.remove(one)
            one.drop() if random.random() < 0.2 else _let_go(one)


def _let_go(held: Held) -> None:
    """Send on what is held. Its answer is not waited for: another one held may have its locks."""
    with suppress(ConnectionError, TimeoutError):
        held.release(timeout=0.0)


# --- what came of it -------------------------------------------------------------------


def _compare(
    seed: int, calls: Sequence[Call], results: Sequence[list[Outcome]], tables: Tables
) -> Tally:
    tally = Tally(rows=len(tables.events()))
    try:
        tables.assert_consistent()
    except AssertionError as error:
        tally.mismatches.append(f"seed {seed}: the tables do not fit together: {error}")
    stored = {row["id"]: row["data"] for row in tables.events()}
    versions = {row["entity_id"]: row["version"] for row in tables.entities()}
    own_rows = Counter(row["saved"] for row in tables.execute(f"SELECT saved FROM {OWN_ROWS}"))
    messages = {row["dedupe_id"] for row in tables.execute("SELECT dedupe_id FROM outbox.inbox")}
    for call, outcomes in zip(calls, results, strict=True):
        for unit in _torn_from_messages(call, own_rows, messages):
            tally.mismatches.append(f"seed {seed}: {unit} is torn from its message")
        for event, outcome in zip(call.events, outcomes, strict=True):
            tally.outcomes[_name(outcome)] += 1
            own = len(call.events) - 1 if call.in_session else 0
            if not _is_true(event, outcome, stored, versions, tables, own):
                way = call.in_session.way.name if call.in_session else "writer"
                tally.mismatches.append(f"seed {seed}: {way}: {event.id} ended as {outcome!r}")
            if call.in_session is not None:
                tally.ways[f"{call.in_session.way.name}: {_name(outcome)}"] += 1
                if own_rows[event.header.saved_date] != _is_mine(event, stored):
                    tally.mismatches.append(f"seed {seed}: {event.id} is torn from its row")
        # A message that is delivered again comes behind others, which may share its entities.
        in_order = isinstance(call.in_session, ConsumerCall) or _keeps_order(call.events, outcomes)
        if not in_order:
            tally.mismatches.append(f"seed {seed}: a subject's events changed places: {outcomes}")
    return tally


def _torn_from_messages(
    call: Call, own_rows: Counter[Any], messages: Collection[str]
) -> Sequence[Unit]:
    """The units of a consumer whose rows are stored without their messages, or the reverse."""
    units = call.in_session.units if isinstance(call.in_session, ConsumerCall) else ()
    return [
        unit
        for unit in units
        if (str(message_id(unit)) in messages)
        != any(own_rows[event.header.saved_date] for event in unit.events)
    ]


def _is_mine(event: Event, stored: dict[UUID, str]) -> bool:
    """Whether it is stored, and not another one with its id."""
    found = json.loads(stored.get(event.id, "null"))
    return found is not None and _saved(found) == _saved(json.loads(event.to_json()))


def _saved(event: dict[str, Any]) -> Any:
    """What is of this one event, and no part of its content."""
    return event["eventHeader"].pop("savedDate")


def _name(outcome: Outcome) -> str:
    kind = type(outcome).__name__
    return f"{kind} ({outcome.status})" if isinstance(outcome, Receipt) else kind


def _is_true(
    event: Event,
    outcome: Outcome,
    stored: dict[UUID, str],
    versions: dict[str, int],
    tables: Tables,
    own: int,
) -> bool:
    found, sent = json.loads(stored.get(event.id, "null")), json.loads(event.to_json())
    is_mine = found is not None and _saved(found) == _saved(sent)
    is_same = found == sent
    if isinstance(outcome, (OutcomeUnknown, CutShort, HandledBefore)):
        return is_mine or not isinstance(outcome, HandledBefore)
    if isinstance(outcome, Receipt):
        is_committed = outcome.status == "committed"
        is_right = is_same and is_mine == is_committed and outcome.event_id == event.id
        return is_right and _fits(outcome, tables)
    if is_mine or isinstance(outcome, (ReturnedAnyway, LostConnection)):
        return False
    if isinstance(outcome, DuplicateEvent):
        return found is not None and outcome.same_content is is_same
    if isinstance(outcome, StaleVersion):
        # A unit of several events sees those that it is rolled back with.
        most = versions.get(event.entities[0].id, 0) + own
        return outcome.expected != outcome.actual <= most
    return True


def _fits(receipt: Receipt, tables: Tables) -> bool:
    try:
        tables.assert_true_to({receipt.event_id: receipt})
    except (AssertionError, ValueError):
        return False
    return True


def _keeps_order(events: Sequence[Event], outcomes: Sequence[Outcome]) -> bool:
    """Whether versions rise in the order of the call; a repeated id is written at its end."""
    times = Counter(event.id for event in events)
    last: Counter[str] = Counter()
    for event, outcome in zip(events, outcomes, strict=True):
        if times[event.id] > 1:
            continue
        if isinstance(outcome, Receipt) and outcome.status == "committed":
            subject = outcome.entities[0]
            if subject.version <= last[subject.entity_id]:
                return False
            last[subject.entity_id] = subject.version
    return True
