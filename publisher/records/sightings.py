"""Where an event is now: waiting, behind another message, dead, or no longer in the outbox."""

from datetime import datetime
from uuid import UUID

import msgspec


class Trouble(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Why a message waits: its last failure, or its paused topic.

    `retry_at` is the time of the next attempt; None with `attempts` above 0 means that the
    message is blocked and waits for an operator.
    """

    topic: str
    attempts: int = 0
    error: str | None = None
    retry_at: datetime | None = None
    paused: bool = False

    @property
    def blocked(self) -> bool:
        """Whether the message waits for an operator."""
        return self.attempts > 0 and self.retry_at is None


class Predecessor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The first message of the subject that is still in the outbox.

    `messages` is the number of messages from it to the one that waits. `more` says that
    the search ended before the first message.
    """

    event_id: UUID
    messages: int
    more: bool
    trouble: Trouble


class WaitingRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of the event that waits in the outbox.

    `replay` is the number of the replay, 0 for the first message. `position` is in
    microseconds. `behind` says that an earlier message of the subject still waits.
    """

    event_id: UUID
    replay: int
    shard: int
    position: int
    behind: bool
    trouble: Trouble


class Death(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of the event that was given up. `replay` is as in `WaitingRecord`."""

    event_id: UUID
    died_at: datetime
    error: str
    attempts: int
    replay: int


class Whereabouts(msgspec.Struct, frozen=True):
    """The messages of an event: those that wait, and those that were given up.

    If there are none of either, the event is no longer in the outbox: a publisher sent it,
    or an operator dropped it.
    """

    waiting: tuple[WaitingRecord, ...] = ()
    deaths: tuple[Death, ...] = ()
