"""The long jobs of the command line, each with six events to work on in three transactions."""

import re
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

import anyio
import psycopg
from tests.support.commands import Command, Finished, run
from tests.support.operations.small_jobs import PAGE, PROGRAM, small_pages
from tests.support.verified import findings_in
from tests.support.waiting import wait_until

from dsql_outbox.operations import Targets
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer

EVENTS: Final = 6
SECRET: Final = "Zaphod"
FINISHING: Final = "finishing the work in progress"
_WITHOUT_RESTS: Final = ("--rate", "100000")
_FIRST: Final = 101
_HELD: LiteralString = "'00000000-0000-0000-0000-000000000067'"  # the third, of the second page
_GOING_ON: Final = re.compile(r"the same command(?: with (?P<more>--\S+ \S+))?")

Prepare = Callable[[str, psycopg.Connection[Any]], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that works page by page, and how a test holds it, and sees what it has done.

    The second of its three pages waits for a transaction with the statement `hold`. `done` counts
    the events that were changed; a job that only reads has none. The texts are patterns of its
    progress while it is held, and after a stop that lets the second page end. The counts are a
    name and a number of its JSON then.
    """

    name: str
    words: tuple[str, ...]
    prepare: Prepare
    hold: LiteralString
    done: LiteralString | None = None
    text_when_held: str
    text_when_stopped: str
    count_when_held: tuple[str, int]
    count_when_stopped: tuple[str, int]
    page: int = PAGE

    @property
    def done_when_stopped(self) -> int:
        """How many events are changed when the page that was held has ended."""
        return PAGE + self.page


# --- what there is to do ---------------------------------------------------------------


def _write(url: str, *numbers: int) -> None:
    events = [
        Event.new("Moved", [Entity("Car", "a", {"owner": SECRET})], id=UUID(int=n)) for n in numbers
    ]
    with Writer(Database(url)) as writer:
        for each in events:
            writer.write(each)


def _waiting(url: str, sql: psycopg.Connection[Any]) -> None:
    """Six events of one entity, whose messages wait."""
    del sql
    _write(url, *range(_FIRST, _FIRST + EVENTS))


def _sent(url: str, sql: psycopg.Connection[Any]) -> None:
    _waiting(url, sql)
    sql.execute("DELETE FROM outbox.outbox")


def _filling(url: str, sql: psycopg.Connection[Any]) -> None:
    """A target that has got two earlier events, whose fill was left then."""
    _write(url, 1, 2)
    _waiting(url, sql)

    async def begin() -> None:
        async with Targets(Database(url)) as targets:
            run = targets.add("lake", from_start=True)
            async for each in run:
                if each.fill is not None and each.fill.read:
                    run.stop()

    with small_pages():
        anyio.run(begin)


def _failing(url: str, sql: psycopg.Connection[Any]) -> None:
    _waiting(url, sql)
    sql.execute(
        "INSERT INTO outbox.outbox_failures"
        " SELECT shard, position, event_id, 1, 'no', 'infinity' FROM outbox.outbox"
    )


def _dead(url: str, sql: psycopg.Connection[Any]) -> None:
    _waiting(url, sql)
    sql.execute(
        "INSERT INTO outbox.dead_letters"
        " SELECT event_id, now() - subject_version * '1 s'::interval, shard, position,"
        " previous_position, subject_type, subject_id, subject_version, topic, headers,"
        " payload_size, created_at, 'no', 1, 0 FROM outbox.outbox"
    )
    sql.execute("DELETE FROM outbox.outbox")


def _replayed(url: str, sql: psycopg.Connection[Any]) -> None:
    """Dead letters, and replays in the table that is verified after them."""
    _dead(url, sql)
    sql.execute(
        "INSERT INTO outbox.outbox_replays"
        " SELECT id, 1, position + 1, '', 'me', now() FROM outbox.business_events"
    )


def _handled(url: str, sql: psycopg.Connection[Any]) -> None:
    """Six messages in the inbox of a consumer."""
    del url
    sql.execute(
        "INSERT INTO outbox.inbox SELECT 'mailer', '', 'm' || n, gen_random_uuid(),"
        " now() - interval '60 d' FROM generate_series(1, 6) AS n"
    )


# --- the jobs --------------------------------------------------------------------------

_HOLD_EVENT: LiteralString = f"SELECT FROM outbox.business_events WHERE id = {_HELD} FOR UPDATE"
_HOLD_LETTER: LiteralString = f"SELECT FROM outbox.dead_letters WHERE event_id = {_HELD} FOR UPDATE"
_LETTERS_DONE: LiteralString = "SELECT 6 - count(*) FROM outbox.dead_letters"

JOBS: Final = [
    Job(
        name="forget",
        words=("forget", "--before", "0s", "--yes", *_WITHOUT_RESTS),
        prepare=_sent,
        hold=_HOLD_EVENT,
        done="SELECT 6 - count(*) FROM outbox.business_events",
        text_when_held="2 events forgotten",
        text_when_stopped="4 events forgotten",
        count_when_held=("events", 2),
        count_when_stopped=("events", 4),
    ),
    Job(
        name="erase",
        words=("erase", "Car/a", "--reason", "ticket 7", "--yes"),
        prepare=_sent,
        hold=_HOLD_EVENT,
        done="SELECT 6 - count(*) FROM outbox.business_events"
        f" WHERE event_data::text LIKE '%{SECRET}%'",
        text_when_held="events: 2 of 6",
        text_when_stopped="events: 4 of 6",
        count_when_held=("events", 2),
        count_when_stopped=("events", 4),
    ),
    Job(
        name="fill",
        words=("targets", "add", "lake", "--from-start"),
        prepare=_filling,
        hold="INSERT INTO outbox.outbox SELECT t.first_shard + e.shard, position, id,"
        " previous_position, subject_type, subject_id, subject_version, topic,"
        " (SELECT o.headers FROM outbox.outbox o WHERE o.event_id = e.id AND o.shard < 1024), NULL,"
        " event_size, now() FROM outbox.business_events e, outbox.outbox_targets t"
        f" WHERE id = {_HELD} AND name = 'lake'",
        done="SELECT count(*) - 2 FROM outbox.outbox"
        " WHERE shard >= (SELECT first_shard FROM outbox.outbox_targets WHERE name = 'lake')",
        text_when_held="filled with 4 messages",
        text_when_stopped="filled with 6 messages",
        count_when_held=("messages", 4),
        count_when_stopped=("messages", 6),
    ),
    Job(
        name="replay",
        words=("messages", "replay", "--all", "--yes"),
        prepare=_sent,
        hold=_HOLD_EVENT,
        done="SELECT count(*) FROM outbox.outbox",
        text_when_held="2 replayed",
        text_when_stopped="4 replayed",
        count_when_held=("replayed", 2),
        count_when_stopped=("replayed", 4),
    ),
    Job(
        name="retry",
        words=("messages", "retry", "--state", "dead", "--all"),
        prepare=_dead,
        hold=_HOLD_EVENT,
        done=_LETTERS_DONE,
        text_when_held="2 retried",
        text_when_stopped="4 retried",
        count_when_held=("retried", 2),
        count_when_stopped=("retried", 4),
    ),
    Job(
        name="retry failing",
        words=("messages", "retry", "--state", "failing", "--all"),
        prepare=_failing,
        hold=f"SELECT FROM outbox.outbox_failures WHERE event_id = {_HELD} FOR UPDATE",
        done="SELECT 6 - count(*) FROM outbox.outbox_failures",
        text_when_held="2 retried",
        text_when_stopped="3 retried",
        count_when_held=("retried", 2),
        count_when_stopped=("retried", 3),
        page=1,
    ),
    Job(
        name="drop",
        words=("messages", "drop", "--state", "dead", "--all", "--yes"),
        prepare=_dead,
        hold=_HOLD_LETTER,
        done=_LETTERS_DONE,
        text_when_held="2 messages deleted",
        text_when_stopped="4 messages deleted",
        count_when_held=("dropped", 2),
        count_when_stopped=("dropped", 4),
    ),
    Job(
        name="verify",
        words=("verify",),
        prepare=_replayed,
        hold="LOCK TABLE outbox.dead_letters IN ACCESS EXCLUSIVE MODE",
        text_when_held="headers: 6",
        text_when_stopped="dead letters: 2",
        count_when_held=("headers", 6),
        count_when_stopped=("deadLetters", 2),
    ),
    Job(
        name="prune",
        words=("inbox", "prune", "--consumer", "mailer", "--older-than", "30d"),
        prepare=_handled,
        hold="SELECT FROM outbox.inbox WHERE dedupe_id = 'm3' FOR UPDATE",
        done="SELECT 6 - count(*) FROM outbox.inbox",
        text_when_held="2 of 2 messages forgotten",
        text_when_stopped="4 of 4 messages forgotten",
        count_when_held=("forgotten", 2),
        count_when_stopped=("forgotten", 4),
    ),
]


# --- one of them at work ---------------------------------------------------------------

_WAITING: LiteralString = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND datname = current_database()"
)
_LEASES_END: LiteralString = (
    "UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 s';"
    "UPDATE outbox.outbox_fills SET expires_at = now() - interval '1 s'"
)


class JobRun:
    """A job with its six events in a database; `sql` is the test's session there."""

    def __init__(self, job: Job, url: str, sql: psycopg.Connection[Any]) -> None:
        self.job = job
        self.url = url
        self._sql = sql
        job.prepare(url, sql)

    def words(self, *more: str, url: str | None = None) -> Sequence[str]:
        """The words of the command, with more of them."""
        return [*self.job.words, *more, "--database", url or self.url]

    def start(self, *more: str, url: str | None = None) -> Command:
        """The command, at work."""
        return Command(*self.words(*more, url=url), program=PROGRAM)

    def run(self, *more: str) -> Finished:
        """The command, at its end."""
        return run(*self.words(*more), program=PROGRAM)

    @contextmanager
    def held(self) -> Generator[psycopg.Connection[Any]]:
        """Hold a job that runs in the block at its second page; a rollback lets it go on."""
        with psycopg.connect(self.url) as holder:
            holder.execute(self.job.hold)
            yield holder

    def wait_for_hold(self) -> int:
        """Wait until it has come to the second page. Returns the process id of its session."""
        wait_until(lambda: bool(self._sql.execute(_WAITING).fetchall()))
        ((pid,),) = self._sql.execute(_WAITING).fetchall()
        return int(pid)

    def stop(self, command: Command, holder: psycopg.Connection[Any]) -> Finished:
        """Stop a held command by Ctrl-C, and let it go on once it has said what it does then."""
        said = interrupt(command)
        holder.rollback()
        ended = command.wait()
        return ended._replace(err=said + ended.err)

    def stop_at_once(self, command: Command) -> Finished:
        """Stop a held command by two Ctrl-C."""
        said = interrupt(command)
        command.signal(signal.SIGINT)
        ended = command.wait()
        return ended._replace(err=said + ended.err)

    def fail(self) -> None:
        """Let the statement of a held command fail."""
        self._sql.execute("SELECT pg_cancel_backend(%s)", (self.wait_for_hold(),))

    def end_leases(self) -> None:
        """Let the leases end that a killed job has left."""
        self._sql.execute(_LEASES_END)

    def assert_done(self, number: int) -> None:
        """Fail unless this many events are changed; a job that only reads changes none."""
        if self.job.done is not None:
            assert self._sql.execute(self.job.done).fetchone() == (number,)

    def assert_complete(self) -> None:
        """Fail unless all is done, and all tables agree."""
        self.assert_done(EVENTS)
        found = anyio.run(findings_in, self.url)
        assert found == [], found


def interrupt(command: Command) -> str:
    """Press Ctrl-C, and wait until the command says that it finishes its work, or ends.

    Returns what it said.
    """
    command.signal(signal.SIGINT)
    said = ""
    while line := command.error_line():
        said += line
        if FINISHING in line:
            break
    return said


def going_on(ended: Finished) -> Sequence[str]:
    """The options with which a command goes on, by what it said. Fails if it said nothing of it."""
    found = _GOING_ON.search(ended.err)
    assert found is not None, ended.err
    return (found["more"] or "").split()
