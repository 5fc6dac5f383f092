"""What the pages of the console show, on a real database."""

import json
import re
from functools import partial
from html import unescape
from shlex import split
from urllib.parse import parse_qs, quote

import anyio
import psycopg
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from click.testing import CliRunner
from httpx import AsyncClient
from tests.support.commands import run
from tests.support.console_clients import browsing
from tests.support.database_roles import as_role
from tests.support.publisher.given_up_messages import event, relay_all
from tests.support.publisher.running_relays import relayed
from tests.support.writer.refused_topics import writer_of_any_topic

from dsql_outbox.cli.main import main
from dsql_outbox.operations import Messages, Selection, Targets, Topics, records
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.operator_commands import Commands
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Publisher, Rejected
from dsql_outbox.schema import apply
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e'; rm -rf ~ #"


async def text(browser: AsyncClient, path: str, code: int = 200) -> str:
    answer = await browser.get(path)
    assert answer.status_code == code, answer.text
    return unescape(" ".join(answer.text.split()))


def written(url: str, *events: Event) -> list[Event]:
    with writer_of_any_topic(Database(url)) as writer:
        for each in events:
            writer.write(each)
    return [*events]


async def searched(browser: AsyncClient) -> str:
    answer = await browser.get(f"/events?q={quote(HOSTILE)}", follow_redirects=True)
    return answer.text


async def paused(database: Database, topic: str, reason: str) -> None:
    async with Topics(database) as topics:
        await topics.pause(topic, reason)


async def test_an_event_says_where_it_is(url: str) -> None:
    database = Database(url)
    blocked, behind = written(url, event("a"), event("a"))
    sink = MemorySink()
    sink.fail(blocked.id, Rejected("Too large"))
    await relayed(database, sink, on_dead_letter="block")
    dead, sent = written(url, event("b"), event("c", 1, "b"))
    await relay_all(database, sink, refused=[dead.id])
    (waits,) = written(url, event("d"))
    async with browsing(database) as browser:
        page = await text(browser, f"/events/{blocked.id}")
        assert "It failed 1 time and is blocked" in page
        assert "Too large" in page
        assert f"dsql-outbox messages retry --state=failing --id={blocked.id}" in page
        page = await text(browser, f"/events/{behind.id}")
        assert "behind 1 message of its subject" in page
        assert f"/events/{blocked.id}" in page
        assert f"dsql-outbox messages retry --state=failing --id={blocked.id}" in page
        page = await text(browser, f"/events/{dead.id}")
        assert "the publisher gave up on it after 1 attempt" in page
        assert f"dsql-outbox messages retry --state=dead --id={dead.id}" in page
        page = await text(browser, f"/events/{sent.id}")
        assert "It was sent, or skipped if its publisher has a map" in page
        assert "/entities?key=Car%2Fb" in page
        assert "No publisher is alive" in await text(browser, f"/events/{waits.id}")
        await paused(database, "events.CarMoved", "maintenance")
        assert "It is paused, with topic events.CarMoved, since " in await text(
            browser, f"/events/{waits.id}"
        )
        page = await text(browser, "/")
        assert "dsql-outbox topics resume -- events.CarMoved" in page
        assert "maintenance" in page
        assert "1 message is blocked" in page
        assert "1 message is a dead letter: the publisher gave up on it " in page
        assert "No publisher is alive: 3 messages wait, the oldest for" in page
        page = await text(browser, "/messages?blocked=1")
        assert "Too large" in page
        assert str(blocked.id) in page
        assert "None" in await text(browser, "/messages?topic=another")
        page = await text(browser, "/messages?state=dead&error=NOT+FOR")
        assert str(dead.id) in page
        assert "dsql-outbox messages retry --state=dead '--error=NOT FOR' --dry-run" in page
        assert str(dead.id) not in await text(browser, "/messages?state=dead&until=2020-01-01")
        await text(browser, "/messages?until=yesterday", 400)
        await text(browser, f"/events/{'0' * 32}", 404)
        await text(browser, "/nowhere", 404)


async def test_an_entity_has_its_state_and_its_history_page_by_page(url: str) -> None:
    first, *_, last = written(url, *(event("a", n) for n in range(60)))
    async with browsing(Database(url)) as browser:
        found = await browser.get("/events?q=Car/a")
        page = await text(browser, found.headers["location"])
        assert '"n": 59' in page
        assert f"/events/{last.id}" in page
        assert f"/events/{first.id}" not in page.partition("History")[2]
        older = await text(browser, "/entities?key=Car/a&before=11")
        assert f"/events/{first.id}" in older
        assert f"/events/{last.id}" not in older.partition("History")[2]
        assert (await browser.get(f"/events?q={first.id}")).headers["location"] == (
            f"/events/{first.id}"
        )
        await text(browser, "/events?q=neither", 400)
        await text(browser, "/entities?key=Car/none", 404)


async def test_dead_letters_come_page_by_page(url: str) -> None:
    events = written(url, *(event(f"car-{n}") for n in range(70)))
    await relay_all(Database(url), MemorySink(), refused=[each.id for each in events])
    async with browsing(Database(url)) as browser:
        first = await browser.get("/messages?topic=events.CarMoved&state=dead")
        (after,) = {
            unescape(part.partition('"')[0])
            for part in first.text.split('href="')[1:]
            if "after=" in part
        }
        second = await browser.get(after)
    shown = [{str(e.id) for e in events if str(e.id) in page.text} for page in (first, second)]
    assert [len(each) for each in shown] == [50, 20]
    assert not shown[0] & shown[1]


async def test_dead_letters_are_grouped_and_each_group_shows_its_command(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, run as it stands, would retry the letters of its group."""
    events = written(url, *(event(f"car-{n}") for n in range(7)))
    sink = MemorySink()
    for n, each in enumerate(events):
        sink.fail(each.id, Rejected(f"account {n} is closed" if n < 5 else "Too 'large' & <b>"))
    await relay_all(Database(url), sink)
    async with browsing(Database(url)) as browser:
        page = await text(browser, "/messages?state=dead")
        groups = page.partition("By error and topic")[2].partition("One by one")[0]
        assert "account * is closed" in groups
        assert groups.index("account * is closed") < groups.index("Too 'large' & <b>")
        assert ">5</p>" in groups
        words = re.sub("</?span>", "", groups)
        shown = [each.partition("</code>")[0] for each in words.split("<code>")]
        planned: list[str] = []
        for each in shown:
            if each.startswith("dsql-outbox"):
                done = await to_thread.run_sync(run, *split(each)[1:], "--database", url)
                planned += [x for x in done.out.decode().splitlines() if x.startswith("topic")]
        assert [int(line.split()[-1]) for line in planned] == [5, 2]
        one = await text(browser, "/messages?state=dead&error=account+*+is+closed")
        assert str(events[0].id) in one
        assert str(events[6].id) not in one
        monkeypatch.setattr("dsql_outbox.console.message_list._COUNTED", 5)
        monkeypatch.setattr("dsql_outbox.operations.letter_groups._LONGEST", 60.0)
        page = await text(browser, "/messages?state=dead")
        assert "The newest 5 dead letters were read, and there are more." in page
        counts = re.findall(r">(\d)\+</p>", page)
        assert sum(map(int, counts)) == 5


async def test_a_message_is_found_by_its_subject(url: str) -> None:
    database = Database(url)
    blocked, *_ = written(url, *(event("a", n) for n in range(12)))
    sink = MemorySink()
    sink.fail(blocked.id, Rejected("Too large"))
    await relayed(database, sink, on_dead_letter="block")
    async with browsing(database) as browser:
        page = await text(browser, "/entities?key=Car/a")
        kept = page.partition("Not delivered")[2].partition("Current state")[0]
        assert f"/events/{blocked.id}" in kept
        assert "Too large" in kept
        assert "10 of 12" in kept
        assert str(blocked.id) in await text(browser, "/messages?subject=Car/a")


async def test_a_message_of_another_target_names_it_in_its_commands(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    database = Database(url)
    async with Targets(database) as targets:
        await targets.add("lake")
    (made,) = written(url, event("a"))
    sink = MemorySink()
    sink.fail(made.id, Rejected("Not for the lake"))
    await Publisher(database, sink, target="lake").run(until_empty=True, max_wait=0)
    await relayed(database, MemorySink())
    async with Topics(database, "lake") as topics:
        await topics.pause("events.CarMoved")
    async with browsing(database) as browser:
        overview = await text(browser, "/")
        assert "topics resume --target=lake -- events.CarMoved" in overview
        assert "/messages?state=dead&target=lake" in overview
        page = await text(browser, f"/events/{made.id}")
        assert f"messages retry --state=dead --target=lake --id={made.id}" in page
        assert "It was sent to target default, or skipped if" in page
        page = await text(browser, "/messages?state=dead&target=lake")
        assert "--target=lake --topic=events.CarMoved '--error=Not for the lake' --dry-run" in page
        assert str(made.id) not in await text(browser, "/messages?state=dead&target=default")
        (written_later,) = written(url, event("b"))
        assert "topics resume --target=lake -- events.CarMoved" in await text(
            browser, f"/events/{written_later.id}"
        )
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT shard FROM outbox.outbox WHERE shard >= 1024")
            ((shard,),) = found.fetchall()
        assert f"in shard {shard} at position" in await text(browser, f"/events/{written_later.id}")
        words = ("messages", "show", written_later.id, "--database", url)
        shown = (await to_thread.run_sync(partial(run, *words))).out.decode()
        assert re.search(rf"^shard, position +{shard}, ", shown, re.MULTILINE)
    async with browsing(database) as browser:
        page = await text(browser, "/")
        assert f'data-label="Shard">{shard}</th><td data-label="Target">lake</td>' in page


async def test_the_overview_begins_with_what_is_most_urgent_and_folds_what_is_idle(
    url: str,
) -> None:
    apply(Database(url), shards=64)
    (dead,) = written(url, event("a"))
    await relay_all(Database(url), MemorySink(), refused=[dead.id])
    written(url, event("b"))
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT shard FROM outbox.outbox").fetchall()
    ((busy,),) = found
    async with browsing(Database(url)) as browser:
        page = await text(browser, "/")
        parts = ["No publisher is alive", "is a dead letter", "<svg", "63 idle shards"]
        assert [page.index(each) for each in parts] == sorted(map(page.index, parts))
        rows = re.findall(r'data-label="Shard">(\d+)<', page)
        idle = ", ".join(str(n) for n in range(64) if n != busy)
        assert (rows, f"<dt>no publisher</dt><dd>{idle}</dd>" in page) == ([str(busy)], True)


async def test_events_are_listed_newest_first_without_a_search(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = written(url, *(event(f"e{n}", n) for n in range(7)))
    await relayed(Database(url), MemorySink())
    waiting = written(url, *(event(f"w{n}", n) for n in range(3)))
    newest = [str(each.id) for each in reversed(made + waiting)]
    async with browsing(Database(url)) as browser:

        async def listed() -> list[str]:
            page = await text(browser, "/events")
            return re.findall(r'href="/events/([0-9a-f-]{36})"', page)

        assert await listed() == newest
        # With more events than are read, those that wait are found by key.
        monkeypatch.setattr(records, "_READ", 9)
        assert await listed() == newest[:3]
        monkeypatch.setattr(records, "_READ", 10)
        assert await listed() == newest


async def test_the_numbers_are_true_where_a_reading_cuts_them(url: str) -> None:
    """A shard with more than 500 messages, and more than 1,000 failures and dead letters."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(
            "INSERT INTO outbox.outbox SELECT n % 2, n, gen_random_uuid(), 0, 'Car', n, 1, 't',"
            " '{}', '{}', 2, now() FROM generate_series(1, 2406) n WHERE n % 2 = 0 OR n < 9"
        )
        sql.execute(
            "INSERT INTO outbox.outbox_failures SELECT shard, position, event_id, 1, 'no',"
            " 'infinity' FROM outbox.outbox WHERE shard = 0 LIMIT 1103"
        )
        sql.execute(
            "INSERT INTO outbox.dead_letters SELECT gen_random_uuid(), now(), 0, n, 0, 'Car', n,"
            " 1, 't', '{}', 2, now(), 'no', 1, 0 FROM generate_series(1, 1234) AS n"
        )
    async with browsing(Database(url), interval=0.05) as browser:
        page = ""
        with anyio.fail_after(30):
            while "were counted at" not in page:  # the next reading may be the first with it
                page = await text(browser, "/")
                await checkpoint()  # a page that is kept gives the reading no time
    figures = page.partition("<dl")[2].partition("</dl>")[0]
    for number in ("<dd>1,207</dd>", "<dd>1,103</dd>", "<dd>1,234</dd>"):
        assert number in figures
    assert 'data-label="Waiting">1,203</td>' in page
    assert 'data-label="Waiting">4</td>' in page
    assert "1,103 messages are blocked" in page


async def test_a_payload_is_shown_on_demand_and_never_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    (made,) = written(url, Event.new("Moved", [Entity("Car", "a", {"pin": "secret-4711"})]))
    caplog.set_level(0)
    async with browsing(Database(url)) as browser:
        assert "secret-4711" not in await text(browser, f"/events/{made.id}")
        page = await text(browser, f"/events/{made.id}?payload=1")
    assert "secret-4711" in page
    assert "secret-4711" not in caplog.text


async def test_a_state_is_shown_as_it_is_stored(url: str) -> None:
    numbers = ('"a":0.10000000000000000001', '"b":1.50')
    with Writer(Database(url)) as writer:
        writer.write(event("a").to_json().decode().replace('"n":0', ",".join(numbers)))
    async with browsing(Database(url)) as browser:
        page = await text(browser, "/entities?key=Car/a")
    assert all(each.replace(":", ": ") in page for each in numbers)


async def test_a_value_that_no_column_can_hold_is_refused(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    async with browsing(Database(url)) as browser:
        for path in (
            "/entities?key=Car/%00",
            "/messages?since=0001-01-01T00:00%2B23:59",
            "/messages?state=lost",
            "/messages?state=dead&blocked=1",
            "/messages?subject=Car/",
            "/messages?topic=%00",
            "/messages?after=dead",
            f"/messages?after=failing/{nobody}/{10**30}",
            "/messages?after=waiting/0/0/nobody",
            f"/messages?after=dead/{nobody}/tomorrow%20evening",
        ):
            assert "This cannot be searched" in await text(browser, path, 400)
    assert caplog.text == ""


async def test_hostile_text_stays_text(url: str) -> None:
    topic = "t" + HOSTILE
    database = Database(url)
    made = Event.new(HOSTILE, [Entity("Car", HOSTILE, {HOSTILE: HOSTILE})], topic=topic)
    written(url, made)
    sink = MemorySink()
    sink.fail(made.id, Rejected(HOSTILE))
    await paused(database, "p" + HOSTILE, HOSTILE)
    key = quote(f"Car/{quote(HOSTILE, safe='')}", safe="")
    paths = ["/", f"/events/{made.id}?payload=1", f"/entities?key={key}", "/messages"]
    async with browsing(database) as browser:
        await relayed(database, sink, on_dead_letter="block")
        pages = [(await browser.get(path)).text for path in paths]
        async with Messages(database) as messages:
            async for each in messages.find(Selection(state="failing")):
                blocked = each
        assert blocked.error == HOSTILE
        pages.append((await browser.get(f"/messages?error={quote(HOSTILE)}")).text)
        pages.append(await searched(browser))
    for page in pages:
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert not set(page) & set("\x1b\u202e")
    assert "# a name has control characters" in pages[0]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ([{"topic": "orders", "by": "broker"}], "orders (broker)</td>"),
        ([{"topic": "orders", "seconds": 9}], ">orders</td>"),
        ([{"topic": f"topic{n:05}"} for n in range(20_000)], " and 19,950 more"),
        (["orders" * 50_000, 7], " and 7 more"),
    ],
    ids=["no seconds", "no cause", "topics", "name"],
)
async def test_what_another_program_tells_as_a_publisher_is_shown_in_bounds(
    url: str, told: object, shown: str
) -> None:
    query = """INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)
        VALUES ('another', now(), 60, %s, 'default')"""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(query, [json.dumps(told)])
    async with browsing(Database(url)) as browser:
        page = await text(browser, "/")
        assert shown in page
        assert len(page) < 20_000


async def test_an_event_links_to_its_traces_in_jaeger(url: str) -> None:
    (made,) = written(url, event("a"))
    async with browsing(Database(url), jaeger="http://jaeger.example:16686/") as browser:
        page = (await browser.get(f"/events/{made.id}")).text
    (link,) = re.findall(r'href="(http://jaeger[^"]*)"', page)
    address, _, query = unescape(link).partition("?")
    assert address == "http://jaeger.example:16686/search"
    search = parse_qs(query)
    assert json.loads(search["tags"][0]) == {"outbox.event.id": str(made.id)}
    assert search["service"] == ["dsql-outbox-publish"]


async def test_a_reader_sees_every_page_and_a_role_without_rights_sees_what_it_lacks(
    url: str, roles: Roles
) -> None:
    (made,) = written(url, event("a"))
    paths = [
        "/",
        f"/events/{made.id}?payload=1",
        "/entities?key=Car/a",
        "/messages",
    ]
    async with browsing(Database(as_role(url, roles.reader))) as browser:
        for path in paths:
            await text(browser, path)
    assert roles.consumer
    async with browsing(Database(as_role(url, roles.consumer))) as browser:
        for path in paths:
            page = await text(browser, path, 403)
            assert "SELECT on outbox.dead_letters" in page
            assert f"dsql-outbox schema grant --reader {roles.consumer}" in page
    grant(Database(url), Roles(reader=roles.consumer))
    async with browsing(Database(as_role(url, roles.consumer))) as browser:
        for path in paths:
            await text(browser, path)


async def test_missing_tables_and_a_lost_database_have_a_page(url: str) -> None:
    async with browsing(Database(url, schema="elsewhere")) as browser:
        page = await text(browser, "/", 503)
        assert "dsql-outbox schema apply --schema elsewhere" in page
    async with browsing(Database("postgresql://127.0.0.1:9/none")) as browser:
        for path in ("/", "/messages"):
            assert "The database cannot be reached" in await text(browser, path, 503)


async def test_the_database_refuses_a_change_by_the_console(url: str) -> None:
    (made,) = written(url, event("a"))
    messages = Messages(Database(url), read_only=True)
    key = {"shards": "{1}", "positions": "{1}", "event_ids": f"{{{made.id}}}"}
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await messages._session.execute("failure_forget", key)
    await messages.close()


def test_the_commands_that_pages_show_are_commands(url: str) -> None:
    """Each parses; what it does is tested where it lives."""
    ids = (event("a").id,)
    commands = Commands("outbox")
    shown = [
        commands.messages("retry", Selection(state="dead"), "--dry-run"),
        commands.messages("retry", Selection(blocked=True)),
        commands.messages("retry", Selection(ids=ids)),
        commands.messages("retry", Selection(error="--all 'x'")),
        commands.messages("drop", Selection(state="failing", ids=ids)) + " --yes",
        commands.messages("list", Selection(subject="Car/a")),
        commands.messages("list", Selection()),
        commands.replay(ids[0]),
        commands.replay_entity("Car/a"),
        commands.resume("-strange topic"),
    ]
    for each in shown:
        words = split(each)
        assert words[0] == "dsql-outbox"
        at = words.index("--") if "--" in words else len(words)
        done = CliRunner().invoke(main, [*words[1:at], "--database", url, *words[at:]])
        assert done.exit_code in {0, 1} or "no event has touched" in done.stderr, (
            each,
            done.output,
        )
        assert "Usage" not in done.output
