"""The row that tells what an operator does, by whom, and why."""

from collections.abc import Mapping
from getpass import getuser
from typing import Literal

from dsql_outbox.outbox.errors import SettingsError

Verb = Literal[
    "erase",
    "forget",
    "messages drop",
    "messages replay",
    "messages retry",
    "schema apply",
    "targets add",
    "targets drop",
    "topics pause",
    "topics resume",
]
"""The verbs that write a row, as the command line names them."""


def operation(verb: Verb, *, reason: str, user: str | None, of: str = "") -> Mapping[str, str]:
    """The parameters of ``operation_record``; `of` is the object of the verb.

    Without a `user`, it is that of the process, or empty if the system has no name for it.
    Raises `SettingsError` for a text with the character NUL.
    """
    named = _process_user() if user is None else user
    if "\0" in reason + named:
        raise SettingsError("a reason or a user must not contain the character NUL")
    return {"verb": verb, "object": of, "reason": reason, "user": named}


def _process_user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container may run with a number that no user has
        return ""
