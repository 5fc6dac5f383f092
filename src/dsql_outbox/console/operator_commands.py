"""The commands that an operator may copy into a shell. Pure."""

from collections.abc import Iterable
from shlex import join
from uuid import UUID

from dsql_outbox.observability import visible
from dsql_outbox.outbox import DEFAULT_SCHEMA


class Commands:
    """Commands for the tables of one schema.

    They read the database from ``DSQL_OUTBOX_DATABASE``. Every word is quoted for a POSIX
    shell.
    """

    def __init__(self, schema: str) -> None:
        self._schema = [] if schema == DEFAULT_SCHEMA else ["--schema", schema]

    def replay_letters(self, *options: str) -> str:
        """Put dead letters back into the outbox."""
        return self._command("dead-letters", "replay", *options)

    def drop_letters(self, *options: str) -> str:
        """Delete dead letters for good."""
        return self._command("dead-letters", "drop", *options)

    def retry(self, *options: str) -> str:
        """Send failed messages again now."""
        return self._command("failures", "retry", *options)

    def bury(self, *options: str) -> str:
        """Move failed messages to the dead letters."""
        return self._command("failures", "bury", *options)

    def resume(self, topic: str) -> str:
        """Resume a paused topic."""
        return self._command("topics", "resume", "--", topic)

    def replay(self, event_id: UUID) -> str:
        """Send a stored event again."""
        return self._command("replay", str(event_id))

    def replay_entity(self, key: str) -> str:
        """Send the events of an entity again; it prints a summary only."""
        return self._command("replay", option("--entity", key), "--dry-run")

    def waiting(self, key: str) -> str:
        """List the waiting messages of a subject."""
        return self._command("waiting", option("--key", key))

    def conflicts(self, hours: int) -> str:
        """Print the conflict report."""
        return self._command("status", "--conflicts", "--hours", str(hours))

    def trace(self, event_id: UUID, jaeger: str | None) -> str:
        """Draw the trace of an event in a terminal."""
        place = ["--jaeger", jaeger] if jaeger else []
        return shown(["dsql-outbox", "trace", str(event_id), *place])

    def _command(self, *words: str) -> str:
        at = words.index("--") if "--" in words else len(words)
        return shown(["dsql-outbox", *words[:at], *self._schema, *words[at:]])


def option(name: str, value: str) -> str:
    """An option with its value as one word, so that the value cannot be another option."""
    return f"{name}={value}"


def shown(words: Iterable[str]) -> str:
    """Quote words for a POSIX shell.

    A control character would be typed into the reader's terminal. So such a text becomes
    a comment that says so.
    """
    text = join(words)
    if visible(text) == text:
        return text
    return "# a name has control characters: select it by the id of an event"
