"""Whatever a role of a duty can store, every command and page answers, and names the row.

Each column has its worst values once, such as infinity, the year 294276, the highest number and
the longest text. All rows are in one database, so one row that cannot be read shows at once.
"""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from tests.support.console_clients import browsing
from tests.support.database_roles import made_roles
from tests.support.worst_values import Row, write_worst_rows

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.servers.postgres_server import EmbeddedPostgres

READING = [
    "status",
    "status --json",
    "messages list --limit 10000",
    "messages list --json --payload --limit 10000",
    "messages list --topic events.CarMoved",
    "messages list --type CarMoved",
    "messages list --error no",
    "messages list --blocked",
    "messages list --since 2026-01-01 --until 2027-01-01",
    "messages retry --all --dry-run",
    "messages drop --state failing --all --dry-run",
    "messages drop --state dead --all --dry-run",
    "topics list",
    "operations --limit 10000",
    "operations --limit 10000 --json",
    "messages replay --all --yes --dry-run",
    "messages replay --all --yes --dry-run --list",
    "messages replay --all --yes --dry-run --json",
]
DIAGNOSES = ["schema check", "schema check --json", "doctor", "doctor --json"]
"""They find faults, so their exit code is 1."""


SHOWN = {
    "-infinity": "0001-01-01T00:00:00Z",
    "4713-01-01 00:00+00 BC": "0001-01-01T00:00:00Z",
    "0001-01-01 00:00+00": "0001-01-01T00:00:00Z",
    "9999-12-31 23:59:59.999999+00": "9999-12-31T23:59:59.999999Z",
    "294276-12-31 23:59:59+00": "9999-12-31T23:59:59.999999Z",
    "infinity": "9999-12-31T23:59:59.999999Z",
}
"""A time as it is shown: itself, or the nearest that Python can represent."""


class Worst(NamedTuple):
    """A database with the worst rows."""

    name: str
    url: str
    rows: list[Row]

    def of(self, *tables: str) -> list[Row]:
        """The rows of these tables."""
        return [row for row in self.rows if row.column.table in tables]

    def ids(self, *tables: str) -> set[str]:
        """The event ids in these tables."""
        return {str(row.values["event_id"]) for row in self.of(*tables)}


@pytest.fixture(scope="module")
def worst(postgres: EmbeddedPostgres) -> Iterator[Worst]:
    """One database for all tests that change nothing."""
    name = f"worst_{uuid4().hex}"
    with made_roles(postgres.url) as roles:
        url = postgres.create_database(name)
        yield Worst(name, url, write_worst_rows(url, roles))
        postgres.drop_database(name)


@pytest.fixture
def copy(worst: Worst, postgres: EmbeddedPostgres) -> Iterator[Worst]:
    """A copy of it, for a test that changes rows."""
    name = f"copy_{uuid4().hex}"
    query = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(query.format(sql.Identifier(name), sql.Identifier(worst.name)))
    yield worst._replace(name=name, url=worst.url.replace(worst.name, name))
    postgres.drop_database(name)


def run(worst: Worst, *words: object, codes: tuple[int, ...] = (0,)) -> Result:
    done = CliRunner().invoke(main, [*map(str, words), "--database", worst.url])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in codes, done.output[-500:]
    assert "Traceback" not in done.output
    assert "Error:" not in done.output
    return done


def listed(worst: Worst, *words: object) -> list[dict[str, Any]]:
    """What a command lists, without the counts of one that changes messages: its last line."""
    told = [json.loads(line) for line in run(worst, *words, "--json").stdout.splitlines()]
    return told[:-1] if {*words} & {"replay", "retry", "drop"} else told


def test_each_role_has_written_its_rows(worst: Worst) -> None:
    duties = {(row.role, row.column.table) for row in worst.rows}
    assert {duty for duty, _ in duties} == {
        "writer",
        "publisher",
        "operator",
        "keeper",
        "consumer",
    }
    assert {table for _, table in duties} >= {"dead_letters", "outbox", "outbox_leases", "inbox"}
    values = [str(row.value) for row in worst.rows]
    for wanted in ("infinity", "294276-12-31 23:59:59+00", str(2**63 - 1), "-1", "nan", "None"):
        assert wanted in values


@pytest.mark.parametrize("words", READING)
def test_a_command_answers(worst: Worst, words: str) -> None:
    run(worst, *words.split())


@pytest.mark.parametrize("words", DIAGNOSES)
def test_a_command_that_finds_faults_answers(worst: Worst, words: str) -> None:
    run(worst, *words.split(), codes=(0, 1))


@pytest.mark.parametrize(
    ("words", "tables"),
    [
        ("messages list --state dead --limit 10000", ["dead_letters"]),
        ("messages list --state failing --limit 10000", ["outbox_failures"]),
        ("messages list --limit 10000", ["outbox", "outbox_failures", "dead_letters"]),
        (
            "messages replay --all --yes --dry-run --list",
            ["business_events", "event_headers", "entities"],
        ),
    ],
)
def test_a_list_names_each_row(worst: Worst, words: str, tables: list[str]) -> None:
    named = {line["eventId"] for line in listed(worst, *words.split())}
    if "business_events" in tables:
        assert saved_until_now(worst) <= named
    else:
        assert worst.ids(*tables) <= named


def saved_until_now(worst: Worst) -> set[str]:
    """The stored events, but for those that are saved later than a replay that begins now."""
    late = ("9999-12-31 23:59:59.999999+00", "294276-12-31 23:59:59+00", "infinity")
    rows = worst.of("business_events")
    return {str(row.values["id"]) for row in rows if row.values["saved_date"] not in late}


def test_each_topic_and_each_publisher_is_named(worst: Worst) -> None:
    topics = {line["topic"] for line in listed(worst, "topics", "list")}
    rows = [row.values for row in worst.of("outbox_topics") if row.values["target"] == "default"]
    assert {row["topic"] for row in rows} == topics | {""}
    (status,) = listed(worst, "status")
    assert len(status["shards"]) == 32


def test_a_letter_is_found_by_its_id_whatever_its_time_of_death(worst: Worst) -> None:
    for row in worst.of("dead_letters"):
        if row.column.name in ("event_id", "died_at"):
            event_id = str(row.values["event_id"])
            words = ("messages", "list", "--state", "dead", "--id", event_id, "--payload")
            (line, *_) = listed(worst, *words)
            assert (line["eventId"], line["payload"]) == (event_id, "{}")
            if row.column.name == "died_at":
                assert line["diedAt"] == SHOWN[row.value]
            assert event_id in run(worst, "messages", "show", event_id).stdout


def test_a_failure_is_found_by_its_id_whatever_its_position(worst: Worst) -> None:
    for row in worst.of("outbox_failures"):
        if row.column.name in ("event_id", "position"):
            event_id = str(row.values["event_id"])
            assert event_id in str(listed(worst, "messages", "list", "--id", event_id))


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_console_shows_each_row(worst: Worst) -> None:
    async with browsing(Database(worst.url)) as browser:
        for path in ("/", "/events", "/events?q=Car/c-1", "/messages"):
            assert (await browser.get(path)).status_code in (200, 303), path
        for state, table in (("dead", "dead_letters"), ("failing", "outbox_failures")):
            seen, link = "", f"/messages?state={state}"
            while link:
                answer = await browser.get(link)
                assert answer.status_code == 200, answer.text[-500:]
                assert answer.text not in seen, "no page comes twice"
                seen += answer.text
                found = re.search(r'href="(/messages\?after=[^"]+)"', answer.text)
                link = unescape(found[1]) if found else ""
            assert not [each for each in worst.ids(table) if each not in seen]
        rows = [row.values for row in worst.of("business_events", "outbox_replays")]
        for event_id in {str(row.get("event_id", row.get("id"))) for row in rows}:
            answer = await browser.get(f"/events/{event_id}")
            assert (answer.status_code, event_id in answer.text) == (200, True), event_id
        rows = [row.values for row in worst.of("event_headers", "entities")]
        subjects = {(row["entity_type"], row["entity_id"]) for row in rows}
        for subject in subjects:
            if all(subject):
                answer = await browser.get("/entities", params={"key": subject_key(*subject)})
                assert answer.status_code == 200, subject


def test_every_letter_is_replayed_or_left_alone_by_name_and_then_dropped(copy: Worst) -> None:
    ids = copy.ids("dead_letters")
    words = ("messages", "retry", "--state", "dead", "--all")
    done = {line["eventId"]: line for line in listed(copy, *words)}
    assert done.keys() == ids
    left = {each for each, line in done.items() if line["status"] != "retried"}
    assert {done[each]["status"] for each in left} <= {"unreadable", "waiting"}
    assert len(left) < len(ids) / 4
    dead = ("messages", "list", "--state", "dead", "--limit", 10_000)
    rest = {line["eventId"] for line in listed(copy, *dead)}
    assert left <= rest
    words = ("messages", "drop", "--state", "dead", "--all", "--yes")
    dropped = {line["eventId"] for line in listed(copy, *words)}
    assert dropped == rest
    assert run(copy, *dead).stdout == "no messages\n"


def test_every_failure_is_retried_or_given_up(copy: Worst) -> None:
    ids = copy.ids("outbox_failures")
    words = ("messages", "drop", "--state", "failing", "--all", "--yes")
    given_up = {line["eventId"] for line in listed(copy, *words)}
    assert given_up == ids
    assert run(copy, "messages", "list", "--state", "failing").stdout == "no messages\n"
    dead = ("messages", "list", "--state", "dead", "--limit", 9_999)
    assert ids <= {line["eventId"] for line in listed(copy, *dead)}


def test_every_event_is_replayed_or_left_alone_by_name(copy: Worst) -> None:
    told = listed(copy, "messages", "replay", "--all", "--yes", "--list")
    assert saved_until_now(copy) <= {line["eventId"] for line in told}
    late = {str(row.values["id"]) for row in copy.of("business_events")} - saved_until_now(copy)
    assert len(late) == 3
    assert late == {line["eventId"] for line in listed(copy, "messages", "replay", *late)}
    assert {line["status"] for line in told} <= {"replayed", "unreadable", "waiting", "missing"}
    assert sum(line["status"] == "replayed" for line in told) > len(told) / 2
    assert UUID(told[0]["eventId"])


def test_a_publisher_relays_the_rest(copy: Worst, tmp_path: Path) -> None:
    """All but an epoch that cannot rise: nobody but a publisher's role can write that."""
    with psycopg.connect(copy.url, autocommit=True) as connection:
        connection.execute("UPDATE outbox.outbox_leases SET epoch = 1, expires_at = NULL")
    written = tmp_path / "sent.jsonl"
    words = ("publish", "--sink", f"jsonl:{written}", "--until-empty", "--max-wait", "0")
    done = run(copy, *words, codes=(0, 1, 75))
    assert "dead " in done.output


def test_the_memory_of_a_consumer_is_pruned(copy: Worst) -> None:
    run(copy, "inbox", "prune", "--consumer", "mailer", "--older-than", "1s")
    with psycopg.connect(copy.url) as connection:
        query = """SELECT count(*) FROM outbox.inbox
            WHERE consumer = 'mailer' AND dedupe_id <> '' AND seen_at < now()"""
        assert connection.execute(query).fetchone() == (0,)  # no inbox stores an empty id
