"""Log lines on standard error, as text or as JSON."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, Literal

import click

from dsql_outbox.observability.json_logs import JsonFormatter
from dsql_outbox.observability.log_hook import log_facts
from dsql_outbox.observability.shown_text import visible

from .exit_codes import short_error
from .output import echo

LogFormat = Literal["text", "json"]

_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
_COMMAND: Final = "dsql_outbox.command"

_LEVELS: Final = {
    "dsql_outbox": (logging.WARNING, logging.INFO, logging.DEBUG),
    # It warns about each lost connection, and the relay reports those itself.
    "psycopg.pool": (logging.ERROR, logging.WARNING),
    _COMMAND: (logging.INFO,),
}
"""The lowest level shown per logger: without --verbose, with one, and with two."""


def announce(text: str) -> None:
    """Print a message of the command on standard error: plain text, or a JSON record."""
    logging.getLogger(_COMMAND).info(text)


@contextmanager
def logs_on_stderr(
    *, verbose: int = 0, log_format: LogFormat = "text", announcing: bool = True
) -> Generator[None]:
    """Show warnings of this and other libraries inside the block; if `verbose`, also info.

    With two or more, each step of the relay is shown as well.

    Without `announcing`, the command's own messages are not shown.

    In JSON the error that ends the command is a log record too, so that standard
    error holds nothing but JSON.
    """
    handler = _EchoHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else _TextFormatter(_FORMAT))
    loggers = {
        logging.getLogger(name): levels[: verbose + 1][-1] for name, levels in _LEVELS.items()
    }
    if not announcing:
        loggers[logging.getLogger(_COMMAND)] = logging.WARNING
    before = {logger: logger.level for logger in loggers}
    logging.getLogger().addHandler(handler)
    for logger, level in loggers.items():
        logger.setLevel(level)
    try:
        yield
    except Exception as error:
        shown = short_error(error) if log_format == "json" else None
        if shown is None:
            raise
        logging.getLogger(_COMMAND).error(shown.format_message())  # noqa: TRY400 - for users
        raise click.exceptions.Exit(shown.exit_code) from error
    finally:
        log_facts.flush()
        logging.getLogger().removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)


@contextmanager
def quiet() -> Generator[None]:
    """Silence the library's log in the block, where conflicts are intended."""
    logger = logging.getLogger("dsql_outbox")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log_facts.flush()  # also the sums
        logger.setLevel(level)


class _TextFormatter(logging.Formatter):
    """Formats time, level and text; for the command's own messages, only the text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        own = record.name == _COMMAND
        return visible(record.getMessage() if own else super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        return "\n".join(map(visible, super().formatException(ei).split("\n")))


class _EchoHandler(logging.Handler):
    """Prints each record as the command prints its lines: above live ones."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            echo(self.format(record), err=True)
        except OSError:
            self.handleError(record)
