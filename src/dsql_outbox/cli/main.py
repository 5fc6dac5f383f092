"""The command `dsql-outbox`: a table of subcommands, each imported when it is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, cast

import click


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A module of this package that defines a command of the same name, and its line of help."""

    module: str
    help: str


_COMMANDS: Final = {
    "demo": Subcommand("demo.command", "See it work: write under conflict, relay, check, trace."),
    "schema": Subcommand("schema.command", "Create, plan or check the tables, and grant rights."),
    "doctor": Subcommand(
        "doctor.command", "Tell whether a database is fit, and what to do if not."
    ),
    "write": Subcommand("write.command", "Store events from files or standard input."),
    "publish": Subcommand(
        "publish.command", "Relay stored events to a broker, in order per subject."
    ),
    "status": Subcommand("status.command", "Show what waits, what failed and who relays."),
    "failures": Subcommand(
        "recovery.failures_command", "List, retry or give up messages that wait after a failure."
    ),
    "dead-letters": Subcommand(
        "recovery.dead_letters_command", "List, show, replay or drop what was given up."
    ),
    "replay": Subcommand("recovery.replay_command", "Send stored events again."),
    "trace": Subcommand("trace.command", "Draw the trace of an event, from Jaeger or a file."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def __init__(self, subcommands: Mapping[str, Subcommand], help: str) -> None:  # noqa: A002 - click's own name
        super().__init__(help=help)
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, as the table has them."""
        return list(self._subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the one command that is called."""
        found = self._subcommands.get(cmd_name)
        if found is None:
            return None
        import_module("dsql_outbox.outbox")  # first: it tells that libpq is missing
        module = import_module(f"{__package__}.{found.module}")
        return cast("click.Command", getattr(module, cmd_name.replace("-", "_")))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what it says as it fails is made visible, too."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            from dsql_outbox.observability import visible  # noqa: PLC0415 - brings OpenTelemetry

            shown = "\n".join(map(visible, error.message.split("\n")))
            error.__dict__["message"] = shown  # click declares it final
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table: click's own way would import them all."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, known.help) for name, known in self._subcommands.items()])


main = click.version_option(package_name="dsql-outbox", prog_name="dsql-outbox")(
    LazyGroup(_COMMANDS, "The transactional outbox for Amazon Aurora DSQL and PostgreSQL.")
)
