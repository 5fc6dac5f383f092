"""The commands that an operator may copy into a shell. Pure."""

from collections.abc import Iterable
from shlex import join
from typing import Literal
from uuid import UUID

from dsql_outbox.observability.shown_text import visible
from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA

from .letter_groups import LetterGroup
from .selection import Selection
from .undelivered import UndeliveredMessage


class Commands:
    """Commands for the tables of one schema.

    They read the database from ``DSQL_OUTBOX_DATABASE``. Every word is quoted for a POSIX
    shell.
    """

    def __init__(self, schema: str) -> None:
        self._schema = [] if schema == DEFAULT_SCHEMA else ["--schema", schema]

    def messages(
        self, verb: Literal["list", "retry", "drop"], which: Selection, *flags: str
    ) -> str:
        """List, retry or drop the selected messages."""
        needs_all = verb != "list" and which.selects_all
        return self._command("messages", verb, *which.words(), *["--all"] * needs_all, *flags)

    def message(self, verb: Literal["retry", "drop"], message: UndeliveredMessage) -> str:
        """Retry or drop one message."""
        which = Selection(state=message.state, ids=(message.event_id,), target=message.target)
        return self.messages(verb, which)

    def group(self, group: LetterGroup) -> str:
        """Try a retry of the dead letters of a group; it prints a summary only."""
        return self.messages("retry", of_group(group), "--dry-run")

    def replay(self, event_id: UUID, target: str | None = None) -> str:
        """Send a stored event again, to a target; None: to the default one."""
        return self._command("messages", "replay", str(event_id), *_of(target))

    def replay_entity(self, key: str) -> str:
        """Send the events of an entity again; it prints a summary only."""
        return self._command("messages", "replay", f"--entity={key}", "--dry-run")

    def resume(self, topic: str, target: str | None = None) -> str:
        """Resume a paused topic of a target; None: of the default one."""
        return self._command("topics", "resume", *_of(target), "--", topic)

    def event(self, event_id: UUID) -> str:
        """Say where an event is."""
        return self._command("event", str(event_id))

    def trace(self, event_id: UUID) -> str:
        """Say where an event is, and link to its trace; the URL of Jaeger is left to the user."""
        return self._command("event", str(event_id), "--jaeger", "URL")

    def entity(self, key: str) -> str:
        """Show the last events of an entity, and what of them waits."""
        return self._command("event", "--", key)

    def topics(self, target: str | None = None) -> str:
        """List the topics that take no messages."""
        return self._command("topics", "list", *_of(target))

    def apply(self) -> str:
        """Make what is missing of the tables."""
        return self._command("schema", "apply")

    def grant_publisher(self, role: str) -> str:
        """Give a role a publisher's rights; the owner of the tables runs it."""
        return self._command("schema", "grant", "--publisher", role)

    def doctor(self) -> str:
        """Check the database."""
        return self._command("doctor")

    def watch(self) -> str:
        """Show the status again and again."""
        return f"watch {self._command('status')}"

    def publish(self, target: str | None = None) -> str:
        """Relay a target; None: the default one. The address of its broker is left to the user."""
        return self._command("publish", "--sink", "URL", *_of(target))

    def _command(self, *words: str) -> str:
        at = words.index("--") if "--" in words else len(words)
        return quote(["dsql-outbox", *words[:at], *self._schema, *words[at:]])


def _of(target: str | None) -> list[str]:
    return [] if target is None else [f"--target={target}"]


def of_group(group: LetterGroup) -> Selection:
    """The dead letters of a group. Without a topic or an error, others are selected too."""
    return Selection(
        state="dead", target=group.target, topic=group.topic or None, error=group.error or None
    )


def quote(words: Iterable[str]) -> str:
    """Quote words for a POSIX shell.

    A control character would be typed into the reader's terminal. So such a text becomes
    a comment that says so.
    """
    text = join(words)
    if visible(text) == text:
        return text
    return "# a name has control characters: select it by the id of an event"
