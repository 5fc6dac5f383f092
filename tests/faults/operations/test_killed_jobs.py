"""Jobs that are killed before each of their steps, and jobs that meet each other."""

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from typing import Any, Final
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.commands import Command, run
from tests.support.operations.forgotten_events import texts
from tests.support.operations.jobs import EVENTS, JOBS, Job, JobRun
from tests.support.operations.small_jobs import PAGE
from tests.support.outbox_databases import OutboxDatabases
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.given_up_messages import relay_all
from tests.support.verified import findings_in

from dsql_outbox.outbox import Database
from dsql_outbox.testing import MemorySink

pytestmark = pytest.mark.postgres_only("a proxy is between the jobs and the server")

Sql = psycopg.Connection[Any]

BY_NAME: Final = {job.name: job for job in JOBS}
FORGET, ERASE = (BY_NAME[name] for name in ("forget", "erase"))

SOME: Final = range(2, 100, 9)
MORE: Final = range(1, 100, 5)
FEW: Final = range(1, 100, 7)
"""Which steps a job is killed at. `make life-kills` kills at any moment of the work."""


def _steps(job: Job) -> range:
    """Few of the steps of a job that has many, and each of one that has few."""
    if job.name == "prune":
        return range(1, 100)
    return FEW if job.name.endswith("ids") else MORE


def before_statement(job_run: JobRun, number: int) -> int:
    """Kill a job when it sends its statements of a number; the server does not get them.

    Returns the exit code of the command, which is 0 if it sends fewer.
    """
    victim = Future[Command]()
    steps = count(1)

    def step() -> None:
        now = next(steps)
        if now == number:
            victim.result().signal(signal.SIGKILL)
        elif now == number - 1:
            proxy.cut("before", matching="")

    with PostgresProxy(job_run.url) as proxy:
        proxy.before(step, None, matching="")
        proxy.cut("before", int(number == 1), matching="")
        with job_run.start(url=proxy.url) as command:
            victim.set_result(command)
            return command.wait().code


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        pytest.param(FORGET, SOME, id="forget-some"),
        pytest.param(ERASE, SOME, id="erase-some"),
        *(
            pytest.param(job, _steps(job), id=job.name, marks=pytest.mark.slow)
            for job in JOBS
            if job.done is not None
        ),
    ],
)
def test_a_job_goes_on_wherever_it_was_killed(
    outbox_databases: OutboxDatabases, job: Job, steps: Iterable[int]
) -> None:
    kills = 0
    for number in steps:
        with outbox_databases.lent(3) as url, psycopg.connect(url, autocommit=True) as sql:
            job_run = JobRun(job, url, sql)
            before = texts(sql)
            code = before_statement(job_run, number)
            assert code in (0, -signal.SIGKILL)
            assert_no_event_is_lost(job_run, sql, before)
            job_run.end_leases()
            done = job_run.run()
            assert done.code == 0, done.err
            job_run.assert_complete()
            assert_no_event_is_lost(job_run, sql, before)
            assert_counted_once(job_run, sql)
        if code == 0:
            break
        kills += 1
    else:
        pytest.fail("there are more steps")
    assert kills > 2


def assert_no_event_is_lost(job_run: JobRun, sql: Sql, before: Mapping[UUID, str]) -> None:
    """Fail if an event is lost or changed that the job does not delete or erase."""
    found = texts(sql)
    match job_run.job.name.split()[0]:
        case "forget":
            assert found.items() <= before.items()
        case "erase":
            assert found.keys() >= before.keys()
        case _:
            assert found == before


def assert_counted_once(job_run: JobRun, sql: Sql) -> None:
    """Fail unless the jobs counted each event once."""
    counted = {"forget": "forgotten", "erase": "erased"}
    column = counted.get(job_run.job.name.split()[0])
    if column is not None:
        rows = sql.execute(f"SELECT {column} FROM outbox.outbox_jobs").fetchall()  # type: ignore[arg-type]
        assert rows == [(EVENTS,)]


# --- the numbers of replays ------------------------------------------------------------

REPLAY: Final = BY_NAME["replay"]


def _replayed_once(url: str, sql: Sql) -> None:
    """Six events, each of which was sent once as a replay."""
    REPLAY.prepare(url, sql)
    replayed = run(*REPLAY.words, "--database", url)
    assert replayed.code == 0, replayed.err
    assert len(sent(url)) == EVENTS


FORGET_REPLAYED: Final = replace(FORGET, prepare=_replayed_once)
"""Each event has a row of a replay, too, and so a transaction of its own."""


def sent(url: str) -> Sequence[str]:
    """Relay all that waits. Returns the ids by which a broker knows a message again."""
    sink = MemorySink()
    anyio.run(relay_all, Database(url), sink)
    return [message.dedupe_id for message in sink.messages]


@pytest.mark.parametrize("steps", [range(5, 100, 12), pytest.param(MORE, marks=pytest.mark.slow)])
def test_a_replay_after_a_killed_forget_gets_a_number_that_no_broker_has_seen(
    outbox_databases: OutboxDatabases, steps: Iterable[int]
) -> None:
    in_the_middle = 0
    for number in steps:
        with outbox_databases.lent(3) as url, psycopg.connect(url, autocommit=True) as sql:
            job_run = JobRun(FORGET_REPLAYED, url, sql)
            if before_statement(job_run, number) == 0:
                break
            left = {str(row[0]) for row in sql.execute("SELECT id FROM outbox.business_events")}
            replayed = run(*REPLAY.words, "--database", url)
            assert replayed.code == 0, replayed.err
            assert sorted(sent(url)) == sorted(f"{event_id}/r2" for event_id in left)
            job_run.end_leases()
            assert anyio.run(findings_in, url) == []
            in_the_middle += 0 < len(left) < EVENTS
    else:
        pytest.fail("there are more steps")
    assert in_the_middle > 1


# --- two jobs --------------------------------------------------------------------------

READ: Final = "SELECT event_id, count(*)"
BEGIN: Final = "BEGIN"
"""Of the transaction that deletes."""


@pytest.fixture
def sql(outbox_url: str) -> Iterator[Sql]:
    with psycopg.connect(outbox_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def forget(outbox_url: str, sql: Sql) -> JobRun:
    """A job that forgets six events, in three transactions."""
    return JobRun(FORGET, outbox_url, sql)


def test_a_job_beside_another_is_refused_and_the_other_goes_on(forget: JobRun, sql: Sql) -> None:
    with PostgresProxy(forget.url) as proxy:
        held = proxy.hold(matching=BEGIN)
        with forget.start(url=proxy.url) as first:
            held.arrived()
            second = forget.run()
            held.release()
            assert first.wait().code == 0
    assert second.code == 75
    assert "the job forget of " in second.err
    forget.assert_complete()
    assert_counted_once(forget, sql)


@pytest.mark.parametrize(("statement", "page"), [(READ, 3), (BEGIN, 1)])
def test_a_job_that_lost_its_lease_in_a_page_changes_nothing_more(
    forget: JobRun, sql: Sql, statement: str, page: int
) -> None:
    before = texts(sql)
    with PostgresProxy(forget.url) as proxy, PostgresProxy(forget.url) as other:
        held = proxy.hold(matching=statement)
        with forget.start(url=proxy.url) as slow:
            for _ in range(page - 1):
                held.arrived()
                following = proxy.hold(matching=statement)
                held.release()
                held = following
            held.arrived()
            forget.end_leases()
            begun = other.hold(matching=READ)
            with forget.start(url=other.url) as quick:
                begun.arrived()
                held.release()
                ended = slow.wait()
                forget.assert_done(PAGE * (page - 1))
                begun.release()
                assert quick.wait().code == 0
    assert ended.code == 75
    assert "another job has begun" in ended.err
    forget.assert_complete()
    assert_no_event_is_lost(forget, sql, before)
    assert_counted_once(forget, sql)
