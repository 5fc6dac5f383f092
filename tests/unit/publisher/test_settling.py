"""Deletes gather: a message at a time does not cost a transaction at a time."""

from collections.abc import Collection, Sequence

import anyio
import psycopg
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import (
    Answering,
    MemoryOutbox,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer
from dsql_outbox.publisher.relay import sender
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.outbox_rows import RowId


@pytest.mark.parametrize("seconds", [0.001, 0.005, 0.02])
def test_a_lone_subject_costs_few_deletes(seconds: float) -> None:
    store, sink = MemoryOutbox(), Answering(lambda _: seconds)
    store.insert(chain("a", list(range(1, 401))))
    in_virtual_time(relay_until(store, sink, lambda: not store.rows))
    assert len(sink.delivered) == 400
    assert store.statements["delete"] <= 80


@pytest.mark.parametrize("pause", [0.004, 0.025])
def test_a_trickle_of_other_subjects_costs_few_deletes(pause: float) -> None:
    store, sink = MemoryOutbox(), Answering(lambda _: 0.005)

    async def trickle(relay: Relay) -> None:
        for number in range(1, 401):
            store.insert([row(str(number), number)])
            relay.wake()
            await anyio.sleep(pause)

    done = lambda: len(sink.delivered) == 400 and not store.rows  # noqa: E731
    in_virtual_time(relay_until(store, sink, done, beside=trickle))
    assert store.statements["delete"] <= 80


class Commits(MemoryOutbox):
    """Notes when rows are deleted; a delete takes `seconds` more."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self.deleted_at: dict[str, float] = {}

    async def delete(self, rows: Collection[RowId]) -> int:
        await anyio.sleep(self._seconds)
        deleted = await super().delete(rows)
        self.deleted_at |= {row.event_id: anyio.current_time() for row in rows}
        return deleted


@pytest.mark.parametrize(
    ("database", "seconds", "longest", "most"),
    [
        ("postgresql://db.example.com/shop", 0.0, 0.03, 60),
        ("postgresql://db.example.com/shop", 0.03, 0.2, 10),
        ("dsql://app@abc.dsql.eu-west-1.on.aws/postgres", 0.0, 0.26, 6),
    ],
)
def test_a_kill_sends_little_again_on_postgres_unless_deletes_are_slow(
    database: str, seconds: float, longest: float, most: int
) -> None:
    """What is sent again is what the broker has and the table does not miss."""
    store = Commits(seconds)
    sent_at: dict[str, float] = {}

    class Timed(Answering):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            await super().publish(messages, answer)
            now = anyio.current_time()
            sent_at.update((str(message.event_id), now) for message in messages)

    async def trickle(relay: Relay) -> None:
        for number in range(1, 401):
            store.insert([row(str(number), number)])
            relay.wake()
            await anyio.sleep(0.0025)

    done = lambda: len(sent_at) == 400 and not store.rows  # noqa: E731
    settings = TunedSettings().for_database(Database(database))
    sink = Timed(lambda _: 0.001)
    in_virtual_time(relay_until(store, sink, done, beside=trickle, settings=settings))
    ages = [store.deleted_at[each] - at for each, at in sent_at.items()]
    assert max(ages) < longest
    assert store.statements["delete"] <= most


def test_a_message_alone_is_deleted_at_once() -> None:
    store, sink = MemoryOutbox(), Answering(lambda _: 0.005)
    store.insert([row("a", 1)])
    assert in_virtual_time(relay_until(store, sink, lambda: not store.rows)) < 0.05


def test_what_fills_the_memory_is_deleted_without_a_wait() -> None:
    store, sink = MemoryOutbox(), Answering(lambda _: 0.001)
    store.insert([row(str(n), n) for n in range(1, 5_001)])
    assert in_virtual_time(relay_until(store, sink, lambda: not store.rows)) < 1.0
    assert store.statements["delete"] <= 5_000 / 100


class Full(MemoryOutbox):
    """Its disk is full: it takes no deletes."""

    async def delete(self, rows: Collection[RowId]) -> int:
        self.statements["delete"] += 1
        raise psycopg.OperationalError(f"no space for {len(rows)} rows")


def test_no_more_is_sent_while_the_database_takes_no_deletes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a crash, all that was sent since would be sent again."""
    monkeypatch.setattr(sender, "MAX_IN_FLIGHT", 64)
    store, sink = Full(), Answering(lambda _: 0.005)
    store.insert([row(str(n), n, topic=f"t{n % 5}") for n in range(1, 501)])
    in_virtual_time(relay_until(store, sink, lambda: store.statements["delete"] >= 50))
    assert 64 <= len(sink.delivered) < 80, "a topic may have two on their way in any case"
