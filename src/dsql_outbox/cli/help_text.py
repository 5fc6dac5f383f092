"""The layout of help texts, also on narrow terminals."""

import re
import textwrap
from collections.abc import Iterable
from shutil import get_terminal_size
from typing import Final

import click

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
