"""The command `dsql-outbox`: a table of subcommands, each imported only when called.

Importing all of them would add the relay, the brokers and rich to every start.
"""

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
    "dev": Subcommand("dev.command", "Run database, broker, publisher and console until Ctrl-C."),
    "schema": Subcommand("schema.command", "Create, plan or check the tables, and grant rights."),
    "doctor": Subcommand(
        "doctor.command", "Check a database before production, and say what to correct."
    ),
    "write": Subcommand("write.command", "Store events from files or standard input."),
    "publish": Subcommand(
        "publish.command", "Relay stored events to a broker, in order per subject."
    ),
    "status": Subcommand("status.command", "Show the backlog, the failures and the publishers."),
    "console": Subcommand("console.command", "Show the outbox in a browser."),
    "waiting": Subcommand(
        "recovery.waiting_command", "List messages that wait, by topic or subject."
    ),
    "failures": Subcommand(
        "recovery.failures_command", "List, retry or give up messages whose delivery failed."
    ),
    "dead-letters": Subcommand(
        "recovery.dead_letters_command", "List, show, replay or drop messages that were given up."
    ),
    "topics": Subcommand("recovery.topics_command", "List, pause or resume topics."),
    "replay": Subcommand("recovery.replay_command", "Send stored events again."),
    "read-model": Subcommand("read_model.command", "Rebuild a read model from the stored events."),
    "inbox": Subcommand("inbox.command", "Forget old messages of a consumer's inbox."),
    "trace": Subcommand("trace.command", "Draw the trace of an event, from Jaeger or a file."),
}


class LazyGroup(click.Group):
    """A click group that lists its commands without importing them."""

    def __init__(self, subcommands: Mapping[str, Subcommand], help: str) -> None:  # noqa: A002 - click's own name
        super().__init__(help=help)
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The command names, in the order of the table."""
        return list(self._subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command `cmd_name`; None if there is no such command."""
        found = self._subcommands.get(cmd_name)
        if found is None:
            return None
        import_module("dsql_outbox.outbox")  # first: its error says how to install libpq
        module = import_module(f"{__package__}.{found.module}")
        return cast("click.Command", getattr(module, cmd_name.replace("-", "_")))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and escape control characters in the error that ends it."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            from dsql_outbox.observability import visible  # noqa: PLC0415 - brings OpenTelemetry

            shown = "\n".join(map(visible, error.message.split("\n")))
            error.__dict__["message"] = shown  # click declares it final
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table; click's own method would import them all."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, known.help) for name, known in self._subcommands.items()])


main = click.version_option(package_name="dsql-outbox", prog_name="dsql-outbox")(
    LazyGroup(_COMMANDS, "The transactional outbox for Amazon Aurora DSQL and PostgreSQL.")
)
