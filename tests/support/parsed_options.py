"""What the command makes of its options, without running it."""

from typing import Any

import click
import pytest

from dsql_outbox.cli.main import main


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The subcommand that these words name, and its arguments."""
    _, command, args = main.resolve_command(click.Context(main), words)
    assert command is not None
    return command, args


def params(words: list[str]) -> dict[str, Any]:
    """What the command makes of these words; raises what it would say if they were wrong."""
    command, args = command_of(words)
    needed = {"DSQL_OUTBOX_SINK": "stdout:", "DSQL_OUTBOX_DATABASE": "postgresql://x"}
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in needed.items():
            patch.setenv(variable, value)
        return command.make_context(command.name, args).params
