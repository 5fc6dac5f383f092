"""The environment variables of the commands."""

import re
from collections.abc import Iterator

import click
from click.testing import CliRunner

from dsql_outbox.cli.main import main

OF_A_SERVICE = re.compile(r"_(PORT|SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)\w*)$")
"""The ends of the variables that Kubernetes puts into each pod for a Service, behind its name."""


def variables(command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            assert each is not None
            yield from variables(each)
    yield from (str(param.envvar) for param in command.params if param.envvar)


def test_no_variable_is_one_that_kubernetes_sets_for_a_service() -> None:
    found = {*variables(main)}
    assert {"DSQL_OUTBOX_DATABASE", "DSQL_OUTBOX_PORT_NUMBER"} <= found
    assert not {name for name in found if OF_A_SERVICE.search(name)}


def test_what_one_call_does_comes_from_no_variable() -> None:
    """Else a variable that was left in a shell turns a daemon into a single pass."""
    once = {"UNTIL_EMPTY", "MAX_WAIT", "PROBE", "JSON", "ON_DUPLICATE", "SOURCE", "TOPIC"}
    assert not {f"DSQL_OUTBOX_{name}" for name in once} & {*variables(main)}


def test_the_console_takes_no_port_from_a_service_of_its_name() -> None:
    done = CliRunner().invoke(
        main,
        ["console", "--database", "mysql://h"],
        env={"DSQL_OUTBOX_PORT": "tcp://10.0.0.1:8640", "DSQL_OUTBOX_CONSOLE_PORT": "tcp://h:1"},
    )
    assert "unknown kind of database mysql:" in done.stderr
