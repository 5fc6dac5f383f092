"""Control characters of events and brokers reach no terminal, and forge no line of a log."""

import json
from datetime import UTC, datetime
from pathlib import Path

import anyio
import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.writer.refused_topics import writer_of_any_topic

from dsql_outbox.cli.demo.span_tree import SpanView, render_tree
from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Publisher, Rejected, Retry
from dsql_outbox.testing import MemorySink

HOSTILE = "Moved\x1b]52;c;ZXZpbA==\x07\r\n2026-01-01 ERROR forged\x9b2J\u202e\x7f"
DANGEROUS = set("\x1b\x07\r\x9b\u202e\x7f\u2028")


def event(entity_id: str) -> Event:
    return Event.new(HOSTILE, [Entity("Car", entity_id, {"km": 1})])


async def relayed(url: str) -> None:
    """One message is a dead letter, another one waits; both for a reason that is hostile, too."""
    with writer_of_any_topic(Database(url)) as writer:
        dead_id = writer.write(event(f"dead {HOSTILE}")).event_id
        waits_id = writer.write(event(f"waits {HOSTILE}")).event_id
    sink = MemorySink()
    sink.fail(dead_id, Rejected(f"refused {HOSTILE}"))
    sink.fail(waits_id, *[Retry(f"later {HOSTILE}")] * 3)
    done = await Publisher(Database(url), sink).run(until_empty=True, max_wait=0)
    assert (done.dead, done.failed) == (1, 1)


def run(url: str, *words: str) -> Result:
    done = CliRunner().invoke(main, [*words, "--database", url])
    assert done.exit_code in (0, 1), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@pytest.mark.parametrize(
    "words",
    ["messages list", "status", "doctor", "messages retry --all"],
)
def test_a_command_shows_no_control_character(url: str, words: str) -> None:
    anyio.run(relayed, url)
    done = run(url, *words.split())
    assert not DANGEROUS & set(done.output)
    assert not [line for line in done.output.splitlines() if line.startswith("2026-01-01 ERROR")]


def test_json_holds_the_same_values_and_no_control_character(url: str) -> None:
    anyio.run(relayed, url)
    for state, name in (("dead", "topic"), ("failing", "error")):
        line = run(url, "messages", "list", "--state", state, "--json").output
        assert not DANGEROUS & set(line)
        assert HOSTILE in json.loads(line)[name]


def test_a_dead_letter_is_shown_without_control_characters(url: str) -> None:
    anyio.run(relayed, url)
    (letter,) = run(url, "messages", "list", "--state", "dead", "--json").output.splitlines()
    shown = run(url, "messages", "show", json.loads(letter)["eventId"], "--payload").output
    assert not DANGEROUS & set(shown)
    assert r"\x1b]52;c" in shown


def test_the_log_of_publish_has_no_forged_line(url: str, nats_url: str) -> None:
    with writer_of_any_topic(Database(url)) as writer:
        writer.write(event("a"))
    words = ("--database", url, "--sink", nats_url, "--until-empty")
    # No stream takes this subject, or NATS refuses the name: either is told with the topic.
    done = CliRunner().invoke(main, ["publish", *words], env={"DSQL_OUTBOX_SINK": None})
    assert "Moved" in done.output
    assert not DANGEROUS & set(done.output)
    assert not [line for line in done.output.splitlines() if line.startswith("2026-01-01 ERROR")]


def test_a_drawn_trace_shows_no_control_character() -> None:
    span = SpanView("7", "8", None, f"publish {HOSTILE}", "PRODUCER", 1, 2)
    drawn = render_tree([span]).plain
    assert "publish Moved" in drawn
    assert not DANGEROUS & set(drawn)


def test_an_error_shows_the_rows_of_nobody(url: str, tmp_path: Path) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "ALTER TABLE outbox.entities ADD CONSTRAINT few CHECK (entity_id <> 'CAR-secret')"
        )
    file = tmp_path / "event.json"
    now = datetime.now(UTC).isoformat()
    file.write_text(
        json.dumps(
            {
                "eventHeader": {"eventName": "a", "eventType": "b", "createdDate": now},
                "entities": [
                    {
                        "entityHeader": {"entityId": "CAR-secret", "entityType": "Car"},
                        "pin": "PIN-4711",
                    }
                ],
            }
        )
    )
    done = run(url, "write", str(file))
    assert done.exit_code == 1
    assert "PIN-4711" not in done.output
    assert "Failing row" not in done.output
    assert "CAR-secret" not in done.output
