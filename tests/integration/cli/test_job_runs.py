"""What users see of a long job, whichever it is: signals, rate, progress, JSON, going on."""

import json
import re
import signal
from time import monotonic
from typing import Any, Final

import psycopg
import pytest
from tests.support.operations.jobs import EVENTS, FINISHING, JOBS, Job, JobRun, going_on
from tests.support.operations.small_jobs import PAGE
from tests.support.pty_terminal import Terminal

pytestmark = pytest.mark.postgres_only("a job is held by a lock")

RATE: Final = 8
"""Events per second. A job that keeps it needs more than half a second, and 0.2 s otherwise."""


def jobs(turn: int | None = None) -> pytest.MarkDecorator:
    """Every job; with a turn, each third one from there, and the others are slow."""
    return pytest.mark.parametrize(
        "job",
        [
            pytest.param(
                job,
                id=job.name.replace(" ", "_"),
                marks=[pytest.mark.slow] * (turn is not None and n % 3 != turn),
            )
            for n, job in enumerate(JOBS)
        ],
    )


every_job: Final = jobs()


@pytest.fixture
def job_run(job: Job, url: str, sql: psycopg.Connection[Any]) -> JobRun:
    return JobRun(job, url, sql)


# --- Ctrl-C ----------------------------------------------------------------------------


@every_job
def test_the_first_ctrl_c_ends_the_transaction_and_the_job_goes_on_as_it_said(
    job_run: JobRun,
) -> None:
    job = job_run.job
    with job_run.held() as holder, job_run.start() as command:
        job_run.wait_for_hold()
        job_run.assert_done(PAGE)
        ended = job_run.stop(command, holder)
    assert ended.code == 130
    assert FINISHING in ended.err
    job_run.assert_done(job.done_when_stopped)
    assert re.search(job.text_when_stopped, ended.out.decode() + ended.err)
    assert_goes_on(job_run, *going_on(ended))


@every_job
def test_a_second_ctrl_c_stops_at_once_and_the_job_goes_on_as_it_said(job_run: JobRun) -> None:
    with job_run.held(), job_run.start() as command:
        job_run.wait_for_hold()
        ended = job_run.stop_at_once(command)
        job_run.assert_done(PAGE)
    assert ended.code == 130
    assert_goes_on(job_run, *going_on(ended))


# --- a failure and a kill --------------------------------------------------------------


@every_job
def test_a_job_that_failed_goes_on_as_it_said_and_json_has_its_counts(job_run: JobRun) -> None:
    with job_run.held(), job_run.start("--json") as command:
        job_run.fail()
        ended = command.wait()
    assert ended.code == 1
    assert "Error: canceling statement" in ended.err
    name, number = job_run.job.count_when_held
    assert counts(ended.out).get(name) == number
    assert_goes_on(job_run, *going_on(ended))


@jobs(turn=0)
def test_a_job_that_was_killed_goes_on(job_run: JobRun) -> None:
    with job_run.held(), job_run.start() as command:
        job_run.wait_for_hold()
        command.signal(signal.SIGKILL)
        assert command.wait().code == -signal.SIGKILL
    job_run.end_leases()
    assert_goes_on(job_run)


def assert_goes_on(job_run: JobRun, *more: str) -> None:
    """Run the command again, with more words, and fail unless all is done once then."""
    done = job_run.run(*more)
    assert done.code == 0, done.err
    job_run.assert_complete()


# --- rate, progress, JSON --------------------------------------------------------------


@jobs(turn=1)
def test_the_rate_is_kept(job_run: JobRun) -> None:
    began = monotonic()
    done = job_run.run("--rate", str(RATE))
    assert done.code == 0, done.err
    assert monotonic() - began >= (EVENTS - job_run.job.page) / RATE
    job_run.assert_complete()


@jobs(turn=2)
def test_a_pipe_gets_the_progress_as_plain_lines(job_run: JobRun) -> None:
    told: list[str] = []
    with job_run.held() as holder, job_run.start() as command:
        while line := command.error_line():
            told.append(line)
            if re.search(job_run.job.text_when_held, line):
                break
        assert line, told
        holder.rollback()
        ended = command.wait()
    assert ended.code == 0, ended.err
    shown = "".join([*told, ended.err, ended.out.decode()])
    assert "\x1b" not in shown
    assert "\r" not in shown


@jobs(turn=0)
def test_a_terminal_shows_the_progress_in_place(job_run: JobRun) -> None:
    told = re.compile(job_run.job.text_when_held)
    with (
        job_run.held() as holder,
        Terminal(200, *job_run.words(), module="tests.support.operations.small_jobs") as terminal,
    ):
        terminal.until(lambda lines: told.search(lines[-1]) is not None)
        assert sum(told.search(line) is not None for line in terminal.lines) == 1
        holder.rollback()
        assert terminal.finish() == 0, terminal.lines


@jobs(turn=2)
def test_json_has_the_counts_of_a_job_that_was_stopped(job_run: JobRun) -> None:
    with job_run.held() as holder, job_run.start("--json") as command:
        job_run.wait_for_hold()
        ended = job_run.stop(command, holder)
    assert ended.code == 130
    name, number = job_run.job.count_when_stopped
    assert counts(ended.out).get(name) == number


def counts(out: bytes) -> dict[str, Any]:
    """What is in the last line of JSON, and in its objects. Fails if there is no line."""
    assert out, "nothing on standard output"
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    for each in [*found.values()]:
        found |= each if isinstance(each, dict) else {}
    return found
