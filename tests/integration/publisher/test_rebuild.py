"""A rebuild applies what was applied, in order per subject, and nothing that still waits."""

from contextlib import aclosing

import psycopg
import pytest
from tests.support.publisher.running_relays import event, relayed, running, until

from dsql_outbox.outbox import AsyncConnection, Database, Message, PublisherRuns, SettingsError
from dsql_outbox.publisher import Publisher, Rebuild, Rejected, rebuild
from dsql_outbox.testing import MemorySink, PostgresProxy
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

DROPPED = ("previousposition", "leaseepoch", "traceparent")


class Seen:
    """A read model: each message that was applied and committed, in order."""

    def __init__(self, sql: psycopg.Connection) -> None:
        self.sql = sql
        sql.execute("CREATE TABLE seen (n bigint GENERATED ALWAYS AS IDENTITY, id text NOT NULL)")

    async def apply(self, connection: AsyncConnection, message: Message) -> None:
        await connection.execute(
            "INSERT INTO public.seen (id) VALUES (%s)", (f"{message.key} {message.event_id}",)
        )

    @property
    def ids(self) -> list[str]:
        return [each for (each,) in self.sql.execute("SELECT id FROM seen ORDER BY n")]


@pytest.fixture
def seen(sql: psycopg.Connection) -> Seen:
    return Seen(sql)


def written(writer: Writer, number: int = 30) -> list[str]:
    """Write events; returns how `seen` must list them, subject by subject."""
    found = [(f"Car/car-{n % 3}", writer.write(event(f"car-{n % 3}", n))) for n in range(number)]
    found.sort(key=lambda pair: pair[0])
    return [f"{key} {receipt.event_id}" for key, receipt in found]


async def rebuilt(database: Database, seen: Seen, after: str | None = None) -> Rebuild:
    async with Rebuild(database, seen.apply) as tool, aclosing(tool.run(after=after)) as pages:
        async for _ in pages:
            pass
    return tool


async def test_all_events_come_subject_by_subject_as_they_were(
    database: Database, writer: Writer, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 7)
    wanted, sink, messages = written(writer), MemorySink(), dict[str, Message]()
    await relayed(database, sink)

    async def keep(connection: AsyncConnection, message: Message) -> None:
        messages[message.dedupe_id] = message
        await seen.apply(connection, message)

    async with Rebuild(database, keep) as tool:
        progress = [each async for each in tool.run()]
    assert seen.ids == wanted
    assert (progress[-1].applied, progress[-1].read, len(progress)) == (30, 30, 5)
    for sent in sink.messages:
        again = messages[sent.dedupe_id]
        left = {name: sent.headers[name] for name in sent.headers if name not in DROPPED}
        assert (again.headers, again.payload, again.topic) == (left, sent.payload, sent.topic)


async def test_what_waits_or_is_dead_is_left_to_the_publisher(
    database: Database, writer: Writer, seen: Seen
) -> None:
    done, sink = written(writer, 3), MemorySink()
    sink.fail(writer.write(event("car-8")).event_id, Rejected("never"))
    assert (await relayed(database, sink)).dead == 1
    waiting = writer.write(event("car-9")).event_id
    await rebuilt(database, seen)
    assert seen.ids == done
    await relayed(database, sink)
    assert (sink.messages[-1].event_id, len(sink.ids)) == (waiting, 4)


async def test_it_goes_on_at_the_place_where_it_stopped(
    database: Database, writer: Writer, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 7)
    wanted = written(writer)
    await relayed(database, MemorySink())
    async with Rebuild(database, seen.apply) as tool, aclosing(tool.run()) as pages:
        async for _ in pages:
            tool.stop()
    assert seen.ids == wanted[:7]
    await rebuilt(database, seen, tool.progress.place)
    assert seen.ids == wanted


async def test_a_publisher_that_runs_or_has_run_ends_it(
    database: Database, writer: Writer, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 7)
    written(writer)
    owned = "SELECT FROM outbox.outbox_leases WHERE owner IS NOT NULL"
    async with running(Publisher(database, MemorySink())):
        await until(lambda: seen.sql.execute(owned).rowcount > 0)
        with pytest.raises(PublisherRuns, match="a publisher runs: stop every publisher"):
            await rebuilt(database, seen)
    await relayed(database, MemorySink())
    async with Rebuild(database, seen.apply) as tool, aclosing(tool.run()) as pages:
        await anext(pages)
        await relayed(database, MemorySink())
        with pytest.raises(PublisherRuns, match="has run since the rebuild began"):
            await anext(pages)
    assert tool.progress.place is None


async def test_a_conflict_is_retried_and_an_error_of_the_function_keeps_the_place(
    outbox_url: str,
    database: Database,
    writer: Writer,
    seen: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 7)
    wanted = written(writer)
    await relayed(database, MemorySink())
    with PostgresProxy(outbox_url) as proxy:
        proxy.refuse(2, at="commit", matching="seen")
        await rebuilt(Database(proxy.url), seen)
    assert seen.ids == wanted
    seen.sql.execute("DELETE FROM seen")

    async def fail(connection: AsyncConnection, message: Message) -> None:
        await seen.apply(connection, message)
        if message.headers["sequence"] == "10":
            raise KeyError

    async with Rebuild(database, fail) as tool, aclosing(tool.run()) as pages:
        with pytest.raises(KeyError):
            async for _ in pages:
                pass
    await rebuilt(database, seen, tool.progress.place)
    assert seen.ids == wanted


async def test_a_lost_commit_leaves_no_place(
    outbox_url: str, database: Database, writer: Writer, seen: Seen
) -> None:
    written(writer, 3)
    await relayed(database, MemorySink())
    with PostgresProxy(outbox_url) as proxy:
        proxy.cut("after_commit", matching="COMMIT")
        async with Rebuild(Database(proxy.url), seen.apply) as tool, aclosing(tool.run()) as pages:
            with pytest.raises(psycopg.OperationalError):
                async for _ in pages:
                    pass
    assert tool.progress.place is None


@pytest.mark.parametrize("place", ["", "Car/a@1", "Car/a@1:x", ":3"])
async def test_a_place_that_is_none_is_refused(database: Database, seen: Seen, place: str) -> None:
    with pytest.raises(SettingsError):
        await rebuilt(database, seen, place)


async def test_a_plain_function_is_refused(database: Database) -> None:
    with pytest.raises(TypeError, match="must be an async function"):
        Rebuild(database, print)  # type: ignore[arg-type]
