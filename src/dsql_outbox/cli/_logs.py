"""Log lines of the library on standard error."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click

_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"

_LEVELS: Final = {
    "dsql_outbox": (logging.WARNING, logging.INFO),
    # Its warnings are about connections that the relay tells of itself.
    "psycopg.pool": (logging.ERROR, logging.WARNING),
}
"""From which level on a logger is shown, usually and with --verbose."""


@contextmanager
def logs_on_stderr(*, verbose: bool) -> Generator[None]:
    """Show warnings, and if `verbose` also what is merely of interest: time, level, text."""
    handler = _EchoHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    loggers = {logging.getLogger(name): levels[verbose] for name, levels in _LEVELS.items()}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
            logger.removeHandler(handler)


class _EchoHandler(logging.Handler):
    """Writes to what is standard error now, which a progress bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            click.echo(self.format(record), err=True)
        except OSError:
            self.handleError(record)
