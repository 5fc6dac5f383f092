"""--verbose is counted on the command line; its variable takes a number, or a word of a flag."""

import click
import pytest
from click.testing import CliRunner

from dsql_outbox.cli.options import log_options


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
