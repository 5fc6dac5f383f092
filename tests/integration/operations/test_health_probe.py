"""What database and broker answer to the daemon's questions, on real ones that come and go."""

from collections.abc import AsyncGenerator, Callable

import anyio
import anyio.to_thread
import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.observability.facts import BacklogAge, BrokerProbed, Fact, LifeJobs, StuckCounts
from dsql_outbox.operations import Health, HealthProbe, health_probe
from dsql_outbox.operations.health import OK
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import open_sink
from dsql_outbox.testing import MemorySink, NatsServer

pytestmark = [pytest.mark.anyio, pytest.mark.client]


class Probed:
    def __init__(self, url: str) -> None:
        self.health = Health()
        self.facts: list[Fact] = []
        self.probe = HealthProbe(Database(url), self.health, [self.facts.append])

    def counts(self) -> list[StuckCounts]:
        return [fact for fact in self.facts if isinstance(fact, StuckCounts)]

    def reached(self) -> list[bool]:
        """What the hooks were told of the broker, without repetition."""
        told = [fact.reached for fact in self.facts if isinstance(fact, BrokerProbed)]
        return [now for now, before in zip(told, [None, *told], strict=False) if now != before]

    def ages(self) -> list[float]:
        return [fact.seconds for fact in self.facts if isinstance(fact, BacklogAge)]


async def until(state: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not state():  # noqa: ASYNC110 - a state, wherever it comes from
            await anyio.sleep(0.01)


@pytest.fixture
async def probed(proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Probed]:
    monkeypatch.setattr(health_probe, "EVERY", 0.02)
    monkeypatch.setattr(health_probe, "_LONGEST", 0.5)
    probed = Probed(proxy.url)
    async with anyio.create_task_group() as group:
        group.start_soon(probed.probe.run)
        yield probed
        group.cancel_scope.cancel()


async def test_a_broker_that_goes_and_comes_is_seen_both_times(probed: Probed) -> None:
    health = probed.health
    assert health.broker == "not connected yet"
    with NatsServer() as server:
        async with open_sink(f"{server.url}?timeout=1") as sink:
            probed.probe.watch(sink)
            await until(lambda: health.broker == OK)
            await anyio.to_thread.run_sync(server.stop)
            await until(lambda: health.broker == "cannot be reached")
            await anyio.to_thread.run_sync(server.start)
            await until(lambda: health.broker == OK)
            probed.probe.watch(None)
            await until(lambda: health.broker == "not connected yet")
    assert probed.reached() == [False, True, False, True, False]


async def test_a_database_that_accepts_no_writes_is_told(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_probe, "EVERY", 0.02)
    sign = "&" if "?" in proxy.url else "?"
    probed = Probed(f"{proxy.url}{sign}options=-cdefault_transaction_read_only%3Don")
    async with anyio.create_task_group() as group:
        group.start_soon(probed.probe.run)
        await until(lambda: probed.health.database == "accepts no writes")
        group.cancel_scope.cancel()
    assert probed.ages(), "it is read all the same"


async def test_a_new_sink_is_asked_at_once(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_probe, "EVERY", 600)
    await until(lambda: bool(probed.ages()))
    await anyio.wait_all_tasks_blocked()
    probed.probe.watch(MemorySink())
    await until(lambda: probed.health.broker == OK)


async def test_a_sink_with_a_bug_is_told_and_ends_nothing(probed: Probed) -> None:
    class Broken(MemorySink):
        async def publish(self, _messages: object, _answer: object, /) -> None:
            raise ZeroDivisionError

    probed.probe.watch(Broken())
    await until(lambda: probed.health.broker == "failed: ZeroDivisionError")
    probed.probe.watch(MemorySink())
    await until(lambda: probed.health.broker == OK)


async def test_a_database_that_goes_and_comes_is_seen_both_times(
    probed: Probed, proxy: PostgresProxy
) -> None:
    health = probed.health
    await until(lambda: health.database == OK)
    proxy.refuse_connections()
    proxy.cut_all()
    await until(lambda: health.database == "cannot be reached")
    proxy.refuse_connections(0)
    await until(lambda: health.database == OK)


async def test_a_database_that_does_not_answer_is_out_of_reach(
    probed: Probed, proxy: PostgresProxy
) -> None:
    await until(lambda: probed.health.database == OK)
    proxy.stall(2, matching="outbox_backlog")  # a look from the head is followed by a shorter one
    await until(lambda: probed.health.database == "cannot be reached")
    await until(lambda: probed.health.database == OK)


async def test_a_change_of_the_schema_does_not_make_the_database_unreachable(
    proxy: PostgresProxy,
) -> None:
    proxy.refuse(1, message="(OC001)", matching="outbox_backlog")
    probed = Probed(proxy.url)
    async with anyio.create_task_group() as group:
        group.start_soon(probed.probe.run)
        await until(lambda: probed.health.database != "not asked yet")
        assert probed.health.database == OK
        group.cancel_scope.cancel()


async def test_the_age_of_the_backlog_is_told_and_zero_when_nothing_waits(
    probed: Probed, url: str
) -> None:
    await until(lambda: probed.ages() == [0.0] * len(probed.ages()) != [])
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            """INSERT INTO outbox.outbox VALUES (1, 1, gen_random_uuid(), 0, 'Car', 'c', 1, 't',
               '{}', '{}', 2, clock_timestamp() - interval '90 s')"""
        )
    await until(lambda: probed.ages()[-1] > 0)
    assert 90 <= probed.ages()[-1] < 120


async def test_dead_letters_and_failures_are_counted_in_the_database(
    probed: Probed, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_probe, "COUNT_EVERY", 0.0)
    monkeypatch.setattr(health_probe, "_COUNTED", 3)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            """INSERT INTO outbox.dead_letters SELECT gen_random_uuid(), clock_timestamp(), 1, n, 0,
               'Car', 'c', n, 't', '{}', 2, clock_timestamp(), 'no', 1, 0
               FROM generate_series(1, 5) AS n"""
        )
        await connection.execute(
            """INSERT INTO outbox.outbox_failures SELECT 1, n, gen_random_uuid(), 1, 'no',
               'infinity' FROM generate_series(1, 2) AS n"""
        )
        await until(lambda: probed.counts()[-1:] == [StuckCounts(3, 2)])
        await connection.execute("DELETE FROM outbox.dead_letters")
        await until(lambda: probed.counts()[-1:] == [StuckCounts(0, 2)])


async def test_what_jobs_have_done_is_told_although_messages_may_not_be_counted(
    probed: Probed, proxy: PostgresProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_probe, "COUNT_EVERY", 0.0)
    proxy.refuse(None, sqlstate="42501", message="no", matching="dead_letter_times")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            """INSERT INTO outbox.outbox_jobs (name, epoch, expires_at, verb, erased, forgotten,
               forgotten_at) VALUES ('life', 3,
               clock_timestamp(), 'forget', 5, 70, clock_timestamp() - interval '90 s')"""
        )

    def told() -> list[LifeJobs]:
        return [fact for fact in probed.facts if isinstance(fact, LifeJobs)]

    await until(lambda: told() != [])
    seen = told()[0]
    assert (seen.forgotten, seen.erased) == (70, 5)
    assert 90 <= (seen.forgotten_s or 0) < 120


async def test_the_global_meter_provider_gets_the_facts_too(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts: list[Fact] = []
    monkeypatch.setattr(health_probe, "target_metrics", lambda _: facts.append)
    probe = HealthProbe(Database(proxy.url), Health())
    async with anyio.create_task_group() as group:
        group.start_soon(probe.run)
        await until(
            lambda: {type(fact) for fact in facts} == {BacklogAge, BrokerProbed, StuckCounts}
        )
        group.cancel_scope.cancel()


async def test_without_the_right_to_count_nothing_is_told_and_asked_once(
    probed: Probed, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_probe, "COUNT_EVERY", 0.0)
    proxy.refuse(None, sqlstate="42501", message="no", matching="dead_letter_times")
    probed.facts.clear()
    await until(lambda: len(probed.ages()) > 1)
    probed.facts.clear()
    await until(lambda: len(probed.ages()) > 1)
    assert (probed.counts(), probed.health.database) == ([], OK)


@pytest.mark.parametrize(
    ("sqlstate", "said"),
    [
        ("42P01", "lacks the outbox tables: run `dsql-outbox schema apply`"),
        ("3F000", "lacks the outbox tables: run `dsql-outbox schema apply`"),
        ("42501", OK),
    ],
)
async def test_what_the_database_refuses_is_told_apart(
    probed: Probed, proxy: PostgresProxy, sqlstate: str, said: str
) -> None:
    proxy.refuse(None, sqlstate=sqlstate, message="no", matching="outbox_backlog")
    for _ in range(2):  # one answer may have been on its way
        probed.health.database = "asked again"
        probed.facts.clear()
        await until(lambda: probed.health.database == said)
    assert probed.ages() == []


async def test_deleted_rows_that_take_long_to_pass_make_no_outage(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old snapshot keeps them at the head; here one row takes longer than a probe may."""
    monkeypatch.setattr(health_probe, "EVERY", 0.02)
    monkeypatch.setattr(health_probe, "_LONGEST", 1.0)
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(
            "CREATE OR REPLACE VIEW outbox.outbox_backlog AS SELECT shard, position, created_at"
            " FROM outbox.outbox WHERE position > 9 OR (pg_sleep(4) IS NULL)"
        )
        sql.execute(
            "INSERT INTO outbox.outbox SELECT 0, n, gen_random_uuid(), 0, 'Car', n::text, 1, 't',"
            " '{}', '{}', 2, now() FROM unnest(ARRAY[9, 4 * 10^15]) AS n"
        )
    probed = Probed(url)
    seen = set[str]()

    def later() -> bool:
        seen.add(probed.health.database)
        return len(probed.ages()) > 3

    async with anyio.create_task_group() as group:
        group.start_soon(probed.probe.run)
        await until(later)
        group.cancel_scope.cancel()
    assert seen == {"not asked yet", OK}
