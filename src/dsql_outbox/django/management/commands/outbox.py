"""``manage.py outbox COMMAND ..``: a command of dsql-outbox on a database of the project."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS

from dsql_outbox.__main__ import main
from dsql_outbox.django.databases import database_url
from dsql_outbox.django.settings import outbox_settings
from dsql_outbox.outbox.errors import MissingExtra, SettingsError

_OWN: Final = ("--using", "--settings", "--pythonpath")
"""The options before the command of the library. Django has read the last two."""


class Command(BaseCommand):
    """Runs any command of ``dsql-outbox`` with the address of an alias."""

    help = "Run a command of dsql-outbox on a database of this project: outbox status."
    # It also serves a project whose tables are missing.
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command line. The options of the library's commands are theirs."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for name in _OWN:
            parser.add_argument(name)
        own, words = _own_words(argv[2:])
        given = parser.parse_args(own)
        script = Path(argv[0]).name
        program = "python -m django" if script == "__main__.py" else script
        try:
            database = _database(f"{program} {argv[1]}", given.using or DEFAULT_DB_ALIAS)
        except CommandError as error:
            self.stderr.write(f"Error: {error}")
            sys.exit(error.returncode)
        main(words, program=f"{program} {argv[1]}", given=database)

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments, for `call_command`."""
        parser.add_argument("--using", default=DEFAULT_DB_ALIAS)
        parser.add_argument("words", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, using: str, words: list[str], **__: Any) -> None:
        """Run a command for `call_command`, such as ``call_command("outbox", "schema", "check")``.

        Raises `SystemExit` unless its exit code is 0.
        """
        database = _database("manage.py outbox", using)
        from dsql_outbox.cli.main import main as command  # noqa: PLC0415 - an extra

        try:  # without `main`, which would take the signals of the calling process
            command(words, prog_name="manage.py outbox", obj=database)
        except SystemExit as ended:
            if ended.code:
                raise


def _own_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Part the options before the library's command from the rest."""
    end = 0
    while end < len(words) and words[end].partition("=")[0] in _OWN:
        end += 1 if "=" in words[end] else 2
    return words[:end], words[end:]


def _database(program: str, using: str) -> object:
    try:
        from dsql_outbox.cli.database_options import GivenDatabase  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise CommandError(str(MissingExtra("cli", program))) from error
    try:
        return GivenDatabase(database_url(using), outbox_settings().schema)
    except SettingsError as error:
        raise CommandError(str(error), returncode=2) from error
