"""The effect of a message under faults: once, and the caller is told whether it ran."""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from random import Random
from typing import Literal

import psycopg
import pytest
from tests.support.commands import Command
from tests.support.inboxes import OpenInbox, effects_in, new_received, remembered
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until

from dsql_outbox.inbox import Handled


@pytest.mark.parametrize("where", ["before", "after_sent", "after_commit", "mid_answer"])
def test_after_a_lost_commit_the_remembered_row_decides(
    where: str, url: str, proxy: PostgresProxy, open_inbox: OpenInbox
) -> None:
    inbox = open_inbox(proxy.url)
    inbox.once("warm")
    proxy.cut(where, matching="COMMIT")  # type: ignore[arg-type]
    handled = inbox.once("a")
    committed = where in {"after_commit", "mid_answer"}
    assert handled.ran
    if committed:
        assert handled == Handled(ran=True, value=2, order="new"), (
            "the value of the run that was committed"
        )
    assert effects_in(url) == ["a", "warm"]
    assert not inbox.once("a").ran


def test_a_commit_that_is_lost_while_another_handles_the_message_did_not_run(
    url: str, proxy: PostgresProxy, open_inbox: OpenInbox
) -> None:
    inbox, other = open_inbox(proxy.url), open_inbox(url)
    proxy.cut("before", matching="COMMIT")
    inbox.once("warm", at_run=lambda _: None)

    def meanwhile(run: int) -> None:
        if run == inbox.runs and not other.runs:
            proxy.before(lambda: other.once("a"), matching='INSERT INTO "outbox".inbox')

    proxy.cut("before", matching="COMMIT")
    assert inbox.once("a", at_run=meanwhile) == Handled(ran=False)
    assert effects_in(url) == ["a", "warm"]


@pytest.mark.parametrize(
    ("at", "matching"), [("commit", "effects"), ("statement", "effects"), ("statement", "inbox")]
)
def test_a_conflict_runs_the_function_again_wherever_it_comes(
    at: Literal["statement", "commit"],
    matching: str,
    url: str,
    proxy: PostgresProxy,
    open_inbox: OpenInbox,
) -> None:
    inbox = open_inbox(proxy.url)
    proxy.refuse(2, at=at, matching=matching)
    assert inbox.once(new_received(10)).order == "next"
    assert len(effects_in(url)) == len(remembered(url)) == 1


def test_conflicts_that_last_raise_the_drivers_error_and_store_nothing(
    url: str, proxy: PostgresProxy, open_inbox: OpenInbox
) -> None:
    inbox = open_inbox(proxy.url)
    proxy.refuse(None, at="commit", matching="effects")
    # SerializationFailure, or on a slow machine that the time was over in the middle of a run
    with pytest.raises(psycopg.OperationalError):
        inbox.once("a", timeout=3.0)
    assert inbox.runs > 1
    assert (effects_in(url), remembered(url)) == ([], [])


def test_an_answer_that_never_comes_ends_with_the_timeout_in_doubt(
    url: str, proxy: PostgresProxy, open_inbox: OpenInbox
) -> None:
    inbox = open_inbox(proxy.url)
    proxy.stall(times=None, matching="COMMIT")
    with pytest.raises(psycopg.OperationalError) as raised:
        inbox.once("a", timeout=1.5)
    assert "may have been committed" in raised.value.__notes__[0]
    proxy.heal()
    proxy.cut_all()
    wait_until(lambda: open_inbox(url).once("a").ran in {True, False}, timeout=10)
    assert effects_in(url) == ["a"]


def test_consumers_that_are_killed_leave_each_effect_exactly_once(url: str, effects: None) -> None:
    del effects

    def done() -> int:
        return len(remembered(url))

    with ExitStack() as processes:

        def start() -> Command:
            return processes.enter_context(Command(url, program=("-c", CONSUMER)))

        random, victim = Random(20261125), start()
        for goal in (20, 45, 75):
            wait_until(at_least(done, goal), timeout=60)
            victim.signal(signal.SIGKILL)
            assert victim.wait().code == -signal.SIGKILL
            victim = start()
            wait_until(at_least(done, goal + random.randrange(1, 9)), timeout=60)
        assert victim.wait().code == 0
    assert effects_in(url) == sorted(f"message-{n}" for n in range(150))


def at_least(count: Callable[[], int], goal: int) -> Callable[[], bool]:
    return lambda: count() >= goal


CONSUMER = """
import sys
from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database

with Inbox(Database(sys.argv[1]), "mailer") as inbox:
    for n in range(150):
        text = f"message-{n}"
        add = "INSERT INTO public.effects VALUES (%s)"
        inbox.once(text, lambda connection: connection.execute(add, (text,)))
"""
