"""The command `dsql-outbox`: a table of subcommands, each imported only when called.

Importing all of them would add the relay, the brokers and rich to every start.
"""

import os
import re
import signal
import sys
import textwrap
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from shutil import get_terminal_size
from typing import Any, Final, cast

import click
from click.shell_completion import CompletionItem

_WIDE: Final = 74
"""Columns from which an option and its help stand side by side."""

_OPTION: Final = 8
"""Columns for names on a narrow terminal; a longer name has its own line."""

_HANGING: Final = re.compile(r"\s*(?:\d+\s+)?")
_COMMAND: Final = "    dsql-outbox "


class HelpText(click.HelpFormatter):
    """Formats help for terminals of 40 columns or more; click's own class needs 52."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        width = width or min(get_terminal_size().columns, max_width or 80) - 2
        super().__init__(indent_increment, width, max_width)

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write a list of names and their help."""
        super().write_dl(rows, col_max if self.width >= _WIDE else _OPTION, col_spacing)

    def getvalue(self) -> str:
        """The text; long lines that click leaves as they are, such as exit codes, are wrapped."""
        lines = super().getvalue().split("\n")
        return "\n".join(part for line in lines for part in self._wrapped(line))

    def _wrapped(self, line: str) -> list[str]:
        if len(line) <= self.width or line.startswith(_COMMAND):  # a command to copy
            return [line]
        found = _HANGING.match(line)
        hanging = " " * len(found[0] if found else "")
        return textwrap.wrap(
            line, self.width, subsequent_indent=hanging, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip


class HelpContext(click.Context):
    """The context of every command: it formats help as `HelpText`."""

    formatter_class = HelpText


def use_help_text(command: click.Command) -> click.Command:
    """Let a command and its subcommands format their help as `HelpText`."""
    command.context_class = HelpContext
    for below in getattr(command, "commands", {}).values():
        use_help_text(below)
    return command


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A module of this package that defines a command of the same name, and its line of help."""

    module: str
    help: str


_COMMANDS: Final = {
    "demo": Subcommand(
        "demo.command", "Show the outbox at work: conflicts, relay, checks, a trace."
    ),
    "schema": Subcommand("schema", "Create, check or drop the tables, and grant rights."),
    "doctor": Subcommand(
        "doctor.command", "Check a database before production, and suggest remedies."
    ),
    "write": Subcommand("write.command", "Store events from files or standard input."),
    "publish": Subcommand("publish", "Relay stored events to a broker, in order per subject."),
    "status": Subcommand("status.command", "Show the backlog, the failures and the publishers."),
    "console": Subcommand("console", "Show the outbox in a browser."),
    "event": Subcommand("event", "Say where an event or an entity's events are."),
    "messages": Subcommand("messages.command", "List, show, retry, drop or replay messages."),
    "topics": Subcommand("topics", "List, pause or resume topics."),
    "targets": Subcommand("targets", "List, add or drop targets."),
    "forget": Subcommand("forget", "Remove old events for good."),
    "erase": Subcommand("erase", "Erase what is stored about an entity."),
    "verify": Subcommand("verify", "Compare the stored events with each other."),
    "operations": Subcommand("operations", "List what operators did: who, when, what and why."),
    "inbox": Subcommand("inbox", "Forget old messages of a consumer's inbox."),
}


_SERVICES: Final = {"console", "publish"}
"""Commands that a signal usually ends, with exit code 0."""


def stopped_early(error: KeyboardInterrupt, words: Collection[str]) -> int:
    """Report a signal that came before the command of these words began; returns the exit code.

    The argument of the error is the number of the signal; it has none after SIGINT.
    """
    click.echo("stopped before the start", err=True)
    number = next(iter(error.args), signal.SIGINT)
    return 0 if _SERVICES & {*words} else 128 + number


class LazyGroup(click.Group):
    """A click group that lists its commands without importing them."""

    context_class = HelpContext

    def __init__(self, subcommands: Mapping[str, Subcommand], help: str) -> None:  # noqa: A002 - click's own name
        super().__init__(help=help, context_settings={"help_option_names": ["-h", "--help"]})
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The command names, in the order of the table."""
        return list(self._subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command `cmd_name`; None if there is no such command."""
        found = self._subcommands.get(cmd_name)
        if found is None:
            return None
        with _shown(f"dsql-outbox {cmd_name} starts", on_terminal=not ctx.resilient_parsing):
            import_module(
                "dsql_outbox.outbox"
            )  # first: its error names the command that installs libpq
            module = import_module(f"{__package__}.{found.module}")
        return use_help_text(cast("click.Command", getattr(module, cmd_name.replace("-", "_"))))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word; the error for an unknown one names similar ones."""
        ctx.invoked_subcommand = args[0]  # click sets it after the import, which a signal may end
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=self._subcommands, ctx=ctx
            ) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete from the table; click's own method would import all commands."""
        known = self._subcommands.items()
        own = click.Command.shell_complete(self, ctx, incomplete)
        return own + [
            CompletionItem(name, help=found.help)
            for name, found in known
            if name.startswith(incomplete)
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. The error that ends it becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # during the start: later, each command prints more
            words = filter(None, [ctx.invoked_subcommand])
            raise click.exceptions.Exit(stopped_early(error, [*words])) from None
        except Exception as error:
            try:
                from .exit_codes import short_error  # noqa: PLC0415 - brings psycopg
            except ImportError:  # without libpq, which `error` names: `__main__` prints it
                raise error from None
            shown = short_error(error)
            if shown is None or shown is error:
                raise
            raise shown from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table; click's own method would import them all."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, known.help) for name, known in self._subcommands.items()])


@contextmanager
def _shown(text: str, *, on_terminal: bool) -> Generator[None]:
    """Show `text` on a terminal during the block, whose imports take half a second."""
    if not (on_terminal and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        yield
        return
    click.echo(text, nl=False, err=True)
    try:
        yield
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


main = click.version_option(package_name="dsql-outbox", prog_name="dsql-outbox")(
    LazyGroup(_COMMANDS, "The transactional outbox for PostgreSQL and Amazon Aurora DSQL.")
)
