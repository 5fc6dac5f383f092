"""``dsql-outbox event``: where an event is, in each of its states, without a trace."""

import json
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from click.testing import CliRunner, Result
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_trace_id
from psycopg.conninfo import conninfo_to_dict
from tests.support.publisher.given_up_messages import event, relay_all
from tests.support.publisher.running_relays import relayed
from tests.support.waiting import wait_until

from dsql_outbox.cli.main import main
from dsql_outbox.observability import TraceFacts
from dsql_outbox.operations import Messages, Selection, Targets, Topics
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.outbox import Database, Event
from dsql_outbox.publisher import Publisher, PublisherSettings, Rejected, Retry
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


def asked(url: str, wanted: object, *words: str) -> str:
    """What the command prints, with its line breaks as spaces."""
    done = run(url, "event", wanted, *words)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80 or "  dsql-outbox " in done.stdout
    return " ".join(done.stdout.split())


def written(url: str, *events: Event) -> list[UUID]:
    with Writer(Database(url)) as writer:
        for each in events:
            writer.write(each)
    return [each.id for each in events]


def refused(url: str, event_id: UUID, error: str, policy: str = "release") -> None:
    """Relay everything to a broker that refuses one event."""
    sink = MemorySink()
    sink.fail(event_id, Rejected(error))
    anyio.run(partial(relayed, Database(url), sink, on_dead_letter=policy))


def test_an_event_that_waits_names_what_it_waits_for(url: str) -> None:
    first, second, third = written(url, event("a"), event("a", 1, "b"), event("a", 2))
    refused(url, first, "too large for me", "block")
    found = asked(url, first)
    assert "It failed 1 time and is blocked: it waits for an operator." in found
    assert f"Send it now: dsql-outbox messages retry --state=failing --id={first}" in found
    found = asked(url, third)
    assert f"behind 2 messages of its subject; the first is of {first}. That one failed" in found
    assert "too large for me" in found
    assert f"Send the first one now: dsql-outbox messages retry --state=failing --id={first}" in (
        found
    )
    assert "touched Car/b at version 1" in asked(url, second)


def test_an_event_whose_message_is_next_says_whether_a_publisher_runs(url: str) -> None:
    (event_id,) = written(url, event("a"))
    assert "No publisher is alive. Start a publisher: dsql-outbox publish" in asked(url, event_id)

    async def beside_a_publisher() -> str:
        database, found = Database(url), ""

        def is_alive() -> bool:
            nonlocal found
            found = asked(url, event_id)
            return "No publisher" not in found

        async with Topics(database) as topics, anyio.create_task_group() as group:
            await topics.pause("events.CarMoved", "maintenance")
            group.start_soon(Publisher(database, MemorySink(), PublisherSettings()).run)
            await anyio.to_thread.run_sync(wait_until, is_alive)
            group.cancel_scope.cancel()
        return found

    found = anyio.run(beside_a_publisher)
    assert "It is paused, with topic events.CarMoved, since 20" in found
    assert " UTC, by postgres: maintenance." in found
    assert "Resume its topic: dsql-outbox topics resume -- events.CarMoved" in found


def test_an_event_that_fails_says_when_it_is_tried_again(url: str) -> None:
    (event_id,) = written(url, event("a"))
    sink = MemorySink()
    sink.fail(event_id, Retry("the disk of the broker is full"))
    settings = PublisherSettings(backoff_base=300.0)
    publisher = Publisher(Database(url), sink, settings)
    anyio.run(partial(publisher.run, until_empty=True, max_wait=0))
    found = asked(url, event_id)
    assert "It failed 1 time. The next attempt is at " in found
    assert "the disk of the broker is full" in found


def test_an_event_that_left_the_outbox_names_each_target(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    early, dead = written(url, event("a"), event("b"))
    refused(url, dead, "not for me")
    found = asked(url, early)
    assert "It was sent, or skipped if its publisher has a map; its trace says which." in found
    assert "No drop by an operator is recorded since it was stored." in found
    linked = asked(url, early, "--jaeger", "http://localhost:16686")
    assert "Find its trace" not in linked
    assert "Its trace: http://localhost:16686/search?" in linked
    assert f"Find its trace: dsql-outbox event {early} --jaeger URL" in found
    assert f"Send it again: dsql-outbox messages replay {early}" in found
    found = asked(url, dead)
    assert "is a dead letter since " in found
    assert "gave up on it after 1 attempt. not for me" in found
    assert f"dsql-outbox messages retry --state=dead --id={dead}" in found
    assert run(url, "messages", "drop", "--state", "dead", "--id", dead, "--yes").exit_code == 0
    (late,) = written(url, event("d"))
    anyio.run(partial(relay_all, Database(url), MemorySink()))
    assert "or dropped by an operator, as messages were at 20" in asked(url, dead)
    assert "No drop by an operator" in asked(url, late)

    async def two_targets() -> None:
        async with Targets(Database(url)) as targets:
            await targets.add("lake")
            await targets.add("loans", types=["Loan"])
        async with Messages(Database(url)) as messages:
            replay = messages.replay(Selection(ids=(early,)), reason="ticket 7", target="lake")
            assert [each.status async for each in replay] == ["replayed"]

    anyio.run(two_targets)
    found = asked(url, early)
    assert "Replay 1 for target lake waits in shard 10" in found
    assert "No publisher of target lake is alive" in found
    assert "No copy of it is waiting for target default." in found
    assert "Target loans takes no events of Car." in found
    assert ": ticket 7" in found
    (late,) = written(url, event("c"))
    done: dict[str, Any] = json.loads(run(url, "event", late, "--json").stdout)
    assert [each.get("target", "default") for each in done["findings"]] == [
        "default",
        "lake",
        "loans",
    ]


def test_a_target_that_was_added_after_an_event_says_so(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    async def lake() -> None:
        async with Targets(Database(url)) as targets:
            await targets.add("lake")
            await targets.add("balances", kind="model")

    (early,) = written(url, event("a"))
    anyio.run(partial(relay_all, Database(url), MemorySink()))
    anyio.run(lake)
    (late,) = written(url, event("b"))
    sql.execute("DELETE FROM outbox.outbox WHERE event_id = %s AND shard >= 1024", (late,))
    told = asked(url, early)
    assert "Target lake was added at 20" in told
    assert " UTC, after the event was stored: it got none." in told
    told = asked(url, late)
    assert "It was sent to target lake, or skipped if" in told
    assert "It was applied by target balances. No drop by an operator is recorded" in told
    sql.execute("DELETE FROM outbox.outbox_operations")
    assert "If the target was added after the event, it got none; else it was sent" in asked(
        url, early
    )


def test_an_erased_event_says_so_and_an_unknown_one_is_an_error(url: str) -> None:
    (event_id,) = written(url, event("a"))
    anyio.run(partial(relay_all, Database(url), MemorySink()))
    assert run(url, "erase", "Car/a", "--reason", "asked", "--yes").exit_code == 0
    found = asked(url, event_id)
    assert "erased in part, at " in found
    unknown = uuid4()
    done = run(url, "event", unknown)
    assert done.exit_code == 1
    name = conninfo_to_dict(url)["dbname"]
    assert f"no event {unknown} is stored in schema outbox of database {name}: " in done.output
    assert "no run that deleted any is recorded" in done.output
    assert run(url, "forget", "--before", "2999-01-01", "--yes").exit_code == 0
    told = run(url, "event", event_id)
    assert told.exit_code == 1
    assert "its last run that deleted any was at 20" in told.output
    assert run(url, "event", "Car/none").exit_code == 1
    assert run(url, "event", "neither").exit_code == 2


def test_an_entity_lists_its_last_versions_and_what_is_left_of_them(url: str) -> None:
    ids = written(url, *(event("a", n) for n in range(12)), event("b", 0, "a"))
    refused(url, ids[0], "not for me", "block")
    found = run(url, "event", "Car/a").stdout.splitlines()
    assert found[0].startswith("Car/a is at version 13 since ")
    assert found[3].split() == [
        "13",
        str(ids[12]),
        "CarMoved",
        "(touched)",
        "left",
        "the",
        "outbox",
    ]
    assert found[4].split() == ["12", str(ids[11]), "CarMoved", "waiting"]
    assert "and 3 earlier versions" in found
    assert found[-3:] == [f"  dsql-outbox event {each}" for each in ids[:3]]
    done: dict[str, Any] = json.loads(run(url, "event", "Car/a", "--json").stdout)
    assert [version["version"] for version, _ in done["versions"]] == [*range(13, 3, -1)]


@pytest.mark.parametrize("base", ["http://localhost:16686", "https://jaeger.example/ui"])
def test_the_trace_of_a_kept_message_is_named(url: str, base: str) -> None:
    given, provider = event("a"), TracerProvider(shutdown_on_exit=False)
    with (
        provider.get_tracer("shop").start_as_current_span("request") as span,
        Writer(Database(url), hooks=[TraceFacts(provider)]) as writer,
    ):
        writer.write(given)
    trace_id = format_trace_id(span.get_span_context().trace_id)
    assert asked(url, given.id, "--jaeger", f"{base}/").endswith(f"{base}/trace/{trace_id}")
    assert asked(url, given.id).endswith(f"Its trace: {trace_id}")


def announced(sql: psycopg.Connection[Any], target: str, paused: str, waits: str | None) -> None:
    """A publisher of a target as it announces itself; `waits`: for its broker, for so long."""
    sql.execute(
        """INSERT INTO outbox.outbox_publishers
             (owner, seen_at, lease_seconds, paused, target, waiting_since)
           VALUES (%s, now(), 600, %s, %s, now() - %s::interval)""",
        (f"host:{target}", paused, target, waits),
    )


def test_an_event_says_what_keeps_its_publishers_from_sending_it(
    url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)

    async def targets() -> None:
        async with Targets(Database(url)) as tool:
            for name, kind in (("away", "sink"), ("held", "sink"), ("model", "model")):
                await tool.add(name, kind=kind)  # type: ignore[arg-type]
        async with Topics(Database(url), target="held") as topics:
            await topics.pause("events.CarMoved", "the move")

    anyio.run(targets)
    _, event_id = written(url, event("a"), event("a", 1))
    told = '[{"topic": "events.CarMoved", "by": "broker", "seconds": 725}, 0]'
    announced(sql, "default", told, None)
    announced(sql, "away", "[]", "2 hours")
    done: dict[str, Any] = json.loads(run(url, "event", event_id, "--json").stdout)
    found = {each.get("target"): each for each in done["findings"]}
    refused, away, held, model = (found[name] for name in ("default", "away", "held", "model"))
    assert refused["text"].count("The broker has refused topic events.CarMoved for 12 min 5 s") == 1
    assert refused["commands"] == [
        ["List the topics that take no messages", "dsql-outbox topics list --target=default"]
    ]
    assert "No publisher of target away has reached its broker for 2 h 0 min." in away["text"]
    assert held["text"].count("paused") == 1
    assert "No publisher of target held is alive." in held["text"]
    assert held["text"].count(", by postgres: the move.") == 1
    assert held["commands"] == [
        ["Start a publisher", "dsql-outbox publish --sink URL --target=held"],
        ["Resume its topic", "dsql-outbox topics resume --target=held -- events.CarMoved"],
    ]
    no_program = (
        "No publisher of target model is alive. Start the program that applies its messages."
    )
    assert model["text"].endswith(no_program)
    assert "commands" not in model


def test_a_missing_publisher_comes_before_a_topic_that_was_paused_on_purpose(url: str) -> None:
    _, event_id = written(url, event("a"), event("a", 1))

    async def pause() -> None:
        async with Topics(Database(url)) as topics:
            await topics.pause("events.CarMoved", "the tax year")

    anyio.run(pause)
    done: dict[str, Any] = json.loads(run(url, "event", event_id, "--json").stdout)
    (found,) = done["findings"]
    assert found["commands"] == [
        ["Start a publisher", "dsql-outbox publish --sink URL"],
        ["Resume its topic", "dsql-outbox topics resume -- events.CarMoved"],
    ]
    assert found["text"].count("paused") == 2, "it is, and so is the first one of its subject"
    assert "the tax year. The first one is paused" in found["text"]
