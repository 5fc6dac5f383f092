"""The log lines about errors of the user's code: the first one of each kind, without its text."""

import logging
from typing import Final

from dsql_outbox.outbox.redaction import without_text

logger: Final = logging.getLogger("dsql_outbox")

_KINDS: Final = 20
"""The most kinds of errors that are logged."""


class FirstErrors:
    """Logs the first error of each kind with its traceback, but without its text.

    The text may quote a message.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def log(self, text: str, kind: Exception, error: BaseException, *about: object) -> None:
        """Log `text`, formatted with `about` and `kind`, which names the error in its place."""
        name = str(kind)
        if name not in self._told and len(self._told) < _KINDS:
            self._told.add(name)
            logger.warning(text, *about, name, exc_info=without_text(error, kind))
