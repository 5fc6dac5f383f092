"""The effect of a message and its memory are one transaction; order is told per subject."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from time import time_ns
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import args_row
from tests.support.database_roles import as_role
from tests.support.inboxes import OpenInbox, effects_in, new_received, remembered

from dsql_outbox.inbox import AsyncInbox, Handled, Inbox, Pruned, pruning
from dsql_outbox.inbox.received import received_message
from dsql_outbox.outbox import (
    Database,
    MessageGap,
    MissingRight,
    SchemaError,
    UnreadableMessage,
)
from dsql_outbox.schema.roles import Roles


def test_the_function_runs_once_per_message_and_consumer(url: str, open_inbox: OpenInbox) -> None:
    mailer, other = open_inbox(url), open_inbox(url, "other")
    assert mailer.once("a") == Handled(ran=True, value=1, order="new")
    assert mailer.once("a") == Handled(ran=False)
    assert other.once("a") == Handled(ran=True, value=1, order="new")
    assert effects_in(url) == ["a", "a"]
    assert remembered(url) == [("mailer", "a"), ("other", "a")]


def test_a_replay_has_no_order_and_is_handled_only_if_its_event_was_not(
    url: str, open_inbox: OpenInbox
) -> None:
    inbox, message = open_inbox(url), new_received(10)
    inbox.once(message)
    again = new_received(99, 0, event_id=message.id, replay=1)
    assert inbox.once(again) == Handled(ran=False)
    assert inbox.once(new_received(98, 0, replay=1)).order == "replay"
    assert inbox.once(again.dedupe_id).ran
    assert inbox.once(new_received(20, 10)).order == "next"


def test_a_gap_that_raises_stores_nothing_and_is_closed_by_the_message_before(
    url: str, open_inbox: OpenInbox
) -> None:
    inbox, late = open_inbox(url), new_received(30, 20)
    inbox.once(new_received(10), on_gap="raise")
    with pytest.raises(
        MessageGap, match="follows position 20, but the last one handled has position 10"
    ):
        inbox.once(late, on_gap="raise")
    assert (inbox.runs, len(remembered(url))) == (1, 1)
    assert inbox.once(new_received(20, 10), on_gap="raise").order == "next"
    assert inbox.once(late, on_gap="raise").order == "next"


def test_two_outboxes_on_one_stream_swallow_nothing_of_each_other(
    url: str, open_inbox: OpenInbox
) -> None:
    inbox, first = open_inbox(url), new_received(20, source="/shop")
    assert inbox.once(first).order == "next"
    other = new_received(10, event_id=first.id, source="/bank")
    assert inbox.once(other) == Handled(ran=True, value=2, order="next")
    assert inbox.once(str(first.id)) == Handled(ran=True, value=3, order="new")
    assert [inbox.once(each).ran for each in (first, other, str(first.id))] == [False] * 3
    assert inbox.once(new_received(30, 20, source="/shop")).order == "next"
    assert inbox.once(new_received(20, 10, source="/bank")).order == "next"


@pytest.mark.parametrize(
    "forged",
    [
        {"position": str(2**63 - 1)},
        {"position": str(2**63)},
        {"position": "9" * 5000},
        {"position": str(time_ns() // 1000 + 3_600_000_000)},
        {"subject": "Loan/real%00x", "position": "50"},
        {"subject": f"{'T' * 65}/1"},
        {"subject": f"T/{'1' * 129}"},
        {"source": "s" * 129},
    ],
)
def test_a_forged_message_neither_reaches_the_database_nor_moves_a_subject(
    url: str, effects: None, forged: dict[str, str]
) -> None:
    del effects
    made = {"id": str(uuid4()), "source": "/shop", "previousposition": "0"}
    made |= {"subject": "Loan/real", "position": "10"}
    with Inbox(Database(url), "mailer") as inbox:
        inbox.once(received_message(made, dedupe_id="d", topic="t", data=b""), lambda _: None)
        with pytest.raises(UnreadableMessage):
            received_message(
                made | {"id": str(uuid4())} | forged, dedupe_id="e", topic="t", data=b""
            )
        later = made | {"id": str(uuid4()), "position": "20", "previousposition": "10"}
        message = received_message(later, dedupe_id="f", topic="t", data=b"")
        assert inbox.once(message, lambda _: None).order == "next"


def test_the_longest_values_that_are_read_can_be_stored(url: str, open_inbox: OpenInbox) -> None:
    key = f"{'%F0%9F%9A%97' * 64}/{'%F0%9F%9A%97' * 128}"
    given = {"id": str(uuid4()), "source": "s" * 128, "subject": key, "position": "1"}
    given |= {"previousposition": str(2**63 - 1)}
    message = received_message(given, dedupe_id="\U0001f697" * 128, topic="t", data=b"")
    inbox = open_inbox(url)
    assert inbox.once(message).order == "first"
    assert inbox.once(message.dedupe_id).ran
    assert not inbox.once(message).ran


def test_many_threads_with_the_same_messages_run_each_once(url: str, effects: None) -> None:
    del effects

    def add(connection: psycopg.Connection[Any], text: str) -> None:
        connection.execute("INSERT INTO public.effects VALUES (%s)", (text,))

    texts = [f"message-{n % 20}" for n in range(200)]
    with Inbox(Database(url), "mailer") as inbox, ThreadPoolExecutor(8) as threads:
        handled = threads.map(lambda text: inbox.once(text, lambda own: add(own, text)), texts)
        assert sum(each.ran for each in handled) == 20
    assert effects_in(url) == sorted(set(texts))


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_concurrent_messages_of_a_subject_lose_no_position(url: str, isolation: Any) -> None:
    messages = [new_received(n, n - 1) for n in range(1, 41)]
    database = Database(url, isolation=isolation)
    with Inbox(database, "mailer") as inbox, ThreadPoolExecutor(4) as threads:

        def deliver(message: Any) -> Any:
            while True:
                with suppress(psycopg.errors.SerializationFailure):  # it is delivered again
                    return inbox.once(message, lambda _: None)

        assert all(each.ran for each in threads.map(deliver, messages))
        assert inbox.once(new_received(41, 40), lambda _: None).order == "next"


@pytest.mark.parametrize(
    "options", [{}, {"cursor_factory": psycopg.RawCursor}, {"row_factory": args_row(list[int])}]
)
def test_remember_joins_a_transaction_of_the_caller(
    url: str, open_inbox: OpenInbox, options: dict[str, Any]
) -> None:
    """Whatever kind of cursors and rows the caller's connection makes."""
    inbox, message = open_inbox(url), new_received()
    with psycopg.connect(url, **options) as sql, Inbox(Database(url), "mailer") as plain:
        assert plain.remember(sql, message)
        assert not plain.remember(sql, message)
        sql.rollback()
    assert inbox.once(message).ran


def test_what_is_old_is_forgotten_in_pages(
    url: str, open_inbox: OpenInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "PAGE", 4)
    inbox, other = open_inbox(url), open_inbox(url, "other")
    names = [f'{n} "{{,\\' for n in range(11)]
    messages = [new_received(source=each) for each in ("/a", "/a", "/b")]
    for each in (*names, *messages):
        inbox.once(each)
    for each in ("old", names[0]):
        other.once(each)
    with psycopg.connect(url, autocommit=True) as sql:
        old = "UPDATE outbox.inbox SET seen_at = now() - interval '2 days' WHERE dedupe_id <> %s"
        sql.execute(old, (names[3],))
    assert inbox.call("prune", timedelta(days=1)) == Pruned(14, 13)
    assert remembered(url) == [("mailer", names[3]), ("other", names[0]), ("other", "old")]


@pytest.mark.anyio
async def test_a_pruning_is_told_by_page_and_goes_on_after_a_stop(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "PAGE", 4)
    async with AsyncInbox(Database(url), "mailer") as inbox:
        for n in range(10):
            await inbox.once(str(n), noop)
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute("UPDATE outbox.inbox SET seen_at = now() - interval '2 days'")
        run = inbox.prune(timedelta(days=1))
        async for done in run:
            assert done == Pruned(4, 4)
            run.stop()
        assert run.again == {}
        again = inbox.prune(timedelta(days=1))
        assert [each.read async for each in again] == [4, 6]
        assert again.again is None


async def noop(connection: psycopg.AsyncConnection[Any]) -> None:
    """Do nothing for a message."""
    del connection


def test_the_rights_of_a_consumer_are_enough(url: str, roles: Roles) -> None:
    with Inbox(Database(as_role(url, roles.consumer)), "mailer") as inbox:
        assert inbox.once(new_received(), lambda _: None).ran
        assert not inbox.once("a", lambda own: own.execute("SELECT 1") and None).value
        assert inbox.prune(timedelta(days=1)) == Pruned(2, 0)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            inbox.once("b", lambda own: own.execute("DELETE FROM outbox.inbox_subjects"))


def test_a_missing_right_is_told_with_the_grant(
    url: str, roles: Roles, open_inbox: OpenInbox
) -> None:
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(f'REVOKE SELECT, INSERT ON outbox.inbox FROM "{roles.consumer}"'.encode())
    inbox = open_inbox(as_role(url, roles.consumer))
    grant = f"table inbox: .* `dsql-outbox schema grant --consumer {roles.consumer}`"
    for call in (lambda: inbox.once("a"), lambda: inbox.call("prune", timedelta(days=1))):
        with pytest.raises(MissingRight, match=grant):
            call()


def test_missing_tables_are_told_with_the_command_of_a_consumer(
    url: str, open_inbox: OpenInbox
) -> None:
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("DROP TABLE outbox.inbox")
    inbox = open_inbox(url)
    for call in (lambda: inbox.once("a"), lambda: inbox.call("prune", timedelta(days=1))):
        with pytest.raises(SchemaError, match="run `dsql-outbox schema apply --inbox`, or without"):
            call()


def test_a_function_of_the_other_kind_is_refused(url: str, open_inbox: OpenInbox) -> None:
    inbox = open_inbox(url)

    async def lazy(_: object) -> None:
        await asyncio.sleep(0)

    wrong: Any = lazy if isinstance(inbox.inbox, Inbox) else lambda _: None
    with pytest.raises(TypeError):
        inbox.call("once", uuid4(), wrong)
    assert remembered(url) == []
