"""--verbose is counted on the command line; its variable takes a number, or a word of a flag."""

from uuid import uuid4

import click
import pytest
from click.testing import CliRunner

from dsql_outbox.cli.logs import quiet
from dsql_outbox.cli.options import log_options
from dsql_outbox.observability.facts import PublishEnded
from dsql_outbox.observability.log_hook import log_facts


@click.command()
@log_options
def shown(verbose: int, log_format: str) -> None:
    """Print the options."""
    click.echo(f"{verbose} {log_format}")


@pytest.mark.parametrize(
    ("words", "variable", "number"),
    [
        (["-vv"], None, 2),
        ([], "true", 1),
        ([], "off", 0),
        ([], "2", 2),
        ([], None, 0),
    ],
)
def test_verbose_is_a_number_or_a_word_of_a_flag(
    words: list[str], variable: str | None, number: int
) -> None:
    done = CliRunner().invoke(shown, words, env={"DSQL_OUTBOX_VERBOSE": variable})
    assert (done.exit_code, done.output) == (0, f"{number} text\n")


def test_another_word_is_refused() -> None:
    done = CliRunner().invoke(shown, env={"DSQL_OUTBOX_VERBOSE": "loud"})
    assert done.exit_code == 2
    assert "'loud' is not a valid" in done.output


def test_nothing_of_a_quiet_block_is_logged_after_it(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        for _ in range(20):
            log_facts(PublishEnded(uuid4(), "quiet.X", "retry", "no answer", 1))
    log_facts.flush()
    assert caplog.messages == []
