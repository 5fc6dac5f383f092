"""What needs an operator: the sentence that is said first, and the command that comes next.

The commonest ones stand in the transcripts of `status`, `topics` and `targets`.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from dsql_outbox.operations.attention import attention, verdict
from dsql_outbox.operations.obstacles import Obstacles, ShortRole
from dsql_outbox.operations.status import (
    Bounded,
    FailedMessage,
    FailureCounts,
    HotSubject,
    Seen,
    Shard,
    Status,
    TargetStatus,
)
from dsql_outbox.operations.topic_pauses import PausedTopic
from dsql_outbox.schema.refused_topics import RefusedTopic

NONE = Bounded(0, more=False)
ALIVE = Seen("p1", alive=True, seen_seconds=0.4, lease_seconds=15.0)
EVENT = UUID(int=7)
WAIT = "2 messages wait, the oldest for 0.3 s."
LAKE_WAIT = "3 messages wait, the oldest for 1 min 30 s."
PUBLISHER_OF_LAKE = Seen("p2", alive=True, seen_seconds=0.4, lease_seconds=15.0, target="lake")


def failures(count: int, blocked: int, retry: float | None, *, more: bool = False) -> FailureCounts:
    worst = FailedMessage(EVENT, 1, 5, 12, retry, "no such stream")
    return FailureCounts(count, more=more, blocked=blocked, worst=(worst,))


def lake(kind: Any = "sink", **given: Any) -> tuple[TargetStatus, ...]:
    facts: dict[str, Any] = {
        "waiting": Bounded(3, more=False),
        "oldest_seconds": 90.0,
        "failing": NONE,
        "dead_letters": NONE,
    }
    plain = TargetStatus("default", "sink", "running", 0, NONE, None, NONE, NONE)
    return plain, TargetStatus("lake", kind, "running", 1024, **facts | given)


def status(**given: Any) -> Status:
    facts: dict[str, Any] = {
        "schema": "outbox",
        "waiting": Bounded(2, more=False),
        "oldest_seconds": 0.3,
        "failures": FailureCounts(0, more=False, blocked=0, worst=()),
        "dead_letters": NONE,
        "shards": (),
        "publishers": (ALIVE,),
        "stranded": (),
        "paused_topics": (),
    }
    return Status(**{**facts, **given})


def test_nothing_is_said_of_an_outbox_that_is_well() -> None:
    assert attention(status()) == ()
    assert verdict(status()).text == (
        "Nothing needs attention: 1 publisher, 2 messages wait, the oldest for 0.3 s."
    )
    two = status(waiting=NONE, oldest_seconds=None, publishers=(ALIVE, ALIVE))
    assert verdict(two).text == "Nothing needs attention: 2 publishers, no message waits."


@pytest.mark.parametrize(
    ("given", "text", "command"),
    [
        (
            {"publishers": (Seen("p1", alive=False, seen_seconds=75.0, lease_seconds=15.0),)},
            ("The last one, p1, was seen 1 min 15 s ago and ended without leaving: it was killed, "
             "ran out of memory, or its host is gone. The log of its service says more. Then"),
            "dsql-outbox publish --sink URL",
        ),
        (
            {"publishers": (Seen("p1", alive=True, seen_seconds=1.0, lease_seconds=15.0,
                                 waiting_seconds=42.0),)},
            (f"No publisher has reached its broker for 42.0 s: {WAIT} When it answers, they are "
             "sent. The log of publisher p1 names the broker and the error."),
            "watch dsql-outbox status",
        ),
        (
            {"publishers": (), "obstacles": Obstacles(read_only=True)},
            ("The database accepts no writes, so nothing is stored and nothing is relayed: "
             f"{WAIT} Publishers go on by themselves when it accepts writes."),
            "dsql-outbox doctor",
        ),
        (
            {"publishers": (), "obstacles": Obstacles(read_only=True), "oldest_seconds": None},
            ("The database accepts no writes, so nothing is stored and nothing is relayed. "
             "Publishers go on by themselves when it accepts writes."),
            "dsql-outbox doctor",
        ),
        (
            {"publishers": (), "schema": "shop", "obstacles": Obstacles(
                roles=(ShortRole("my app", ("DELETE on outbox",)),))},
            "Role my app lacks DELETE on outbox, and no publisher is alive: 2 messages wait",
            "dsql-outbox schema grant --publisher 'my app' --schema shop",
        ),
        (
            {"targets": lake(), "obstacles": Obstacles(roles=(ShortRole("p", tuple("abcde")),))},
            "Role p lacks a, b, c and 2 more rights, and no publisher of target lake is alive: 3",
            "dsql-outbox schema grant --publisher p",
        ),
        (
            {"publishers": (
                msgspec.structs.replace(ALIVE, paused=(RefusedTopic("orders", "broker", 65.0),)),
                msgspec.structs.replace(
                    ALIVE, owner="p2", paused=(RefusedTopic("orders", "broker", 725.0),)),
            )},
            ("The broker has refused topic orders for 12 min 5 s: other topics go on. "
             f"Meanwhile {WAIT} The publisher's log has the error. Give the broker what the error "
             "names: no restart is needed."),
            "dsql-outbox topics list",
        ),
        (
            {"publishers": (msgspec.structs.replace(ALIVE, paused_more=7, paused=(
                RefusedTopic("bills", "map", 65.0), RefusedTopic("orders", "map", 70.0))),)},
            ("The map has failed for topics bills, orders and 7 more, the first for 1 min 10 s: "
             f"other topics go on. Meanwhile {WAIT} The publisher's log has the error. Correct the "
             "map, and start the publisher again."),
            "dsql-outbox topics list",
        ),
        (
            {"failures": failures(1, 0, 30.0)},
            ("1 message fails and holds back its subject. It failed 12 times; the next attempt is "
             f"in 30.0 s. Meanwhile {WAIT}"),
            f"dsql-outbox event {EVENT}",
        ),
        (
            {"failures": failures(20, 0, 30.0),
             "targets": lake("model", failing=Bounded(20, more=False)),
             "publishers": (ALIVE, PUBLISHER_OF_LAKE)},
            ("20 messages of target lake fail and hold back their subjects. One failed 12 times; "
             f"the next attempt is in 30.0 s. Meanwhile {LAKE_WAIT}"),
            "dsql-outbox messages list --state=failing --target=lake",
        ),
        (
            {"paused_topics": (PausedTopic("orders", "ticket 7", "ann",
                                           datetime(2026, 1, 1, tzinfo=UTC), 7_200.0),)},
            ("Topic orders has been paused for 2 h 0 min, by ann: ticket 7. Meanwhile 2 messages "
             "wait, the oldest for 0.3 s, other topics included."),
            "dsql-outbox topics resume -- orders",
        ),
        (
            {"targets": lake("model")},
            "Start the program that applies its messages.",
            None,
        ),
        (
            {"oldest_seconds": 61.0, "hot_subject": HotSubject("Car/C 1", 4, 601, 1_000)},
            ("One subject is slow, the rest is not: Car/C 1 has at least 601 messages in shard 4, "
             "the oldest waits for 1 min 1 s, and a subject is sent in its order, one message "
             "after the other. More publishers do not help it: wait, or split the subject"),
            "dsql-outbox event -- 'Car/C 1'",
        ),
        (
            {"oldest_seconds": 61.0, "hot_subject": HotSubject("Car/C-1", 4, 601, 1_000),
             "shards": (Shard(4, 61.0, "p1", 1, 9.0), Shard(5, 60.5, "p1", 1, 9.0))},
            ("The publishers are behind: 2 messages wait, the oldest for 1 min 1 s. Car/C-1 has at "
             "least 601 messages in shard 4"),
            "dsql-outbox event -- Car/C-1",
        ),
        (
            {"oldest_seconds": 21.0, "hot_subject": HotSubject("Car/C-1", 4, 601, 1_000)},
            ("One subject is slow, the rest is not: Car/C-1 has at least 601 messages in shard 4, "
             "the oldest waits for 21.0 s"),
            "dsql-outbox event -- Car/C-1",
        ),
        (
            {"oldest_seconds": 59.0, "hot_subject": HotSubject("Car/C-1", 4, 601, 1_000),
             "shards": (Shard(4, 59.0, "p1", 1, 9.0), Shard(5, 58.0, "p1", 1, 9.0))},
            "The publishers are behind: 2 messages wait, the oldest for 59.0 s. Car/C-1 has at",
            "dsql-outbox event -- Car/C-1",
        ),
        (
            {"oldest_seconds": 59.0, "hot_subject": HotSubject("Car/C-1", 4, 300, 1_000)},
            "Nothing needs attention",
            None,
        ),
        (
            {"oldest_seconds": 61.0, "hot_subject": HotSubject("Car/C-1", 4, 300, 1_000)},
            "The broker or the database is slow",
            "watch dsql-outbox status",
        ),
        (
            {"targets": lake(), "publishers": (ALIVE, PUBLISHER_OF_LAKE),
             "hot_subject": HotSubject("Car/C-1", 4, 30, 30)},
            "The broker or the database is slow",
            "watch dsql-outbox status",
        ),
        (
            {"targets": lake(), "hot_subject": HotSubject("Car/C-1", 1030, 30, 30),
             "publishers": (ALIVE, PUBLISHER_OF_LAKE)},
            ("One subject of target lake is slow, the rest is not: Car/C-1 has at least 30 "
             "messages in shard 1030"),
            "dsql-outbox event -- Car/C-1",
        ),
        (
            {"dead_letters": Bounded(4, more=False), "dead_seconds": 7_500.0, "schema": "shop"},
            "4 messages are dead letters: the publisher gave up on the first 2 h 5 min ago.",
            "dsql-outbox messages list --state=dead --schema shop",
        ),
    ],
)  # fmt: skip
def test_the_first_sentence_names_the_cause_and_the_next_command(
    given: dict[str, Any], text: str, command: str | None
) -> None:
    first = verdict(status(**given))
    assert text in first.text
    assert first.command == command


def test_the_most_urgent_comes_first_and_nothing_is_said_twice() -> None:
    found = attention(
        status(
            publishers=(),
            oldest_seconds=4_000.0,
            failures=failures(2, 1, None),
            dead_letters=Bounded(1, more=False),
            dead_error="too large",
        )
    )
    assert found[2].error == "too large"
    assert [each.text.split(":")[0].split(".")[0] for each in found] == [
        "No publisher is alive",
        "1 message is blocked and holds back its subject, until an operator decides",
        "1 message is a dead letter",
    ]
    assert found[1].error == "no such stream"


def test_what_an_operator_paused_comes_behind_faults_and_its_backlog_is_said_once() -> None:
    pauses = tuple(
        PausedTopic(name, "", "ann", datetime(2026, 1, 1, tzinfo=UTC), 60.0)
        for name in ("orders", "bills")
    )
    letters = {"dead_letters": Bounded(1, more=False), "dead_seconds": 9.0}
    found = attention(status(publishers=(), paused_topics=pauses, **letters))
    assert [each.text.split(" ")[0] for each in found] == ["No", "1", "Topic", "Topic"]
    assert "".join(each.text for each in found).count("2 messages wait") == 1
    found = attention(status(paused_topics=pauses, failures=failures(1, 0, 9.0)))
    assert [each.text.split(" ")[0] for each in found] == ["1", "Topic", "Topic"]
    found = attention(status(paused_topics=pauses))
    assert "".join(each.text for each in found).count("2 messages wait") == 1
