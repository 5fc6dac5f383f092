"""The selection of messages that were not delivered, and its forms as text. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self, get_args
from urllib.parse import unquote
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.message import parse_subject_key

State = Literal["failing", "dead", "waiting"]
"""The state of a message that was not delivered.

``failing``: an attempt failed, and the message holds back its subject. ``dead``: it was given
up. ``waiting``: it is in the outbox, and no attempt of it has failed.
"""

STATES: Final[tuple[State, ...]] = get_args(State)

_TEXTS: Final = ("target", "subject", "topic", "type", "error")
_TIMES: Final = ("since", "until")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPECIAL: Final = re.compile(r"[\\%_]")
_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])").fullmatch


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Selects the messages that match every field that is set.

    `subject` is ``TYPE/ID``, or ``TYPE`` for all subjects of a type. `target`, `topic` and `type`,
    the type of the event, match exactly. `error` is a part of the last error, in any case; in it,
    ``*`` stands for any text. `since`
    (inclusive) and `until` (exclusive) are times with a time zone: of the death of a dead message,
    of the creation of another. `blocked` selects only the failing messages that wait for an
    operator. With `ids`, those of events, the read is a look-up by key.

    Raises `SettingsError` for a value that no message can have, and for fields that exclude
    each other.

        >>> Selection(state="dead", error="max_payload").words()
        ['--state=dead', '--error=max_payload']
    """

    state: State | None = None
    ids: tuple[UUID, ...] = ()
    target: str | None = None
    subject: str | None = None
    topic: str | None = None
    type: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    blocked: bool = False

    def __post_init__(self) -> None:
        """Check the values, before anything is read."""
        if self.state is not None and self.state not in STATES:
            raise SettingsError(f"state is one of {', '.join(STATES)}, got {self.state!r}")
        for name in _TEXTS:
            _require_text(name, getattr(self, name))
        if self.subject is not None:
            _parsed_subject(self.subject)
        times = [_require_time(name, getattr(self, name)) for name in _TIMES]
        if times[0] is not None and times[1] is not None and times[0] >= times[1]:
            raise SettingsError(f"since {times[0]} is not before until {times[1]}")
        if self.blocked and self.state not in {None, "failing"}:
            raise SettingsError(f"a message in state {self.state} is not blocked: omit one of them")
        if self.error is not None and self.state == "waiting":
            raise SettingsError("a waiting message has no error: omit state or error")

    @property
    def entity(self) -> tuple[str, str] | None:
        """The type and the id of the one subject that it selects, if any."""
        names = (None, None) if self.subject is None else _parsed_subject(self.subject)
        return (names[0], names[1]) if names[0] is not None and names[1] is not None else None

    @property
    def selects_all(self) -> bool:
        """Whether it selects every message of its states."""
        return self == Selection(state=self.state)

    @property
    def states(self) -> tuple[State, ...]:
        """The states that a selected message may have."""
        if self.state is not None:
            return (self.state,)
        if self.blocked:
            return ("failing",)
        return STATES if self.error is None else ("failing", "dead")

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements.

        `type` is only for statements that read events. An outbox row has it in its headers, and
        one row with headers that PostgreSQL cannot parse must not fail the statement. `error` is a
        pattern of LIKE.
        """
        names = (None, None) if self.subject is None else _parsed_subject(self.subject)
        return {
            "state": self.state,
            "event_ids": array_literal(self.ids) if self.ids else None,
            "subject_type": names[0],
            "subject_id": names[1],
            "topic": self.topic,
            "event_type": self.type,
            "error": None if self.error is None else _like(self.error),
            "since": None if self.since is None else self.since.astimezone(UTC).isoformat(),
            "until": None if self.until is None else self.until.astimezone(UTC).isoformat(),
            "blocked": self.blocked,
        }

    def texts(self) -> dict[str, list[str]]:
        """The fields that are set, as texts: the query of a URL, and what `parse` accepts."""
        given = {name: getattr(self, name) for name in ("state", *_TEXTS, *_TIMES)}
        texts = {
            name: [value.isoformat() if isinstance(value, datetime) else value]
            for name, value in given.items()
            if value is not None
        }
        if self.blocked:
            texts["blocked"] = ["1"]
        if self.ids:
            texts["id"] = [str(each) for each in self.ids]
        return texts

    def words(self) -> list[str]:
        """The options of ``dsql-outbox messages`` for it, each one word."""
        return [
            "--blocked" if name == "blocked" else f"--{name}={value}"
            for name, values in self.texts().items()
            for value in values
        ]

    @classmethod
    def parse(cls, given: Mapping[str, Sequence[str]]) -> Self:
        """Parse texts by the names of the fields, as `texts` returns them. Other names are ignored.

        A time is in ISO 8601, in UTC without a zone, or it is an age: ``90d`` is 90 days ago.
        Raises `SettingsError` for a text that is not a value of its field.
        """
        fields: dict[str, Any] = {
            name: given[name][0] for name in ("state", *_TEXTS) if given.get(name)
        }
        fields |= {name: _time(given[name][0]) for name in _TIMES if given.get(name)}
        return cls(
            **fields,
            ids=tuple(_id(text) for text in given.get("id", ())),
            blocked=bool(given.get("blocked")),
        )


def age_of(text: str) -> timedelta | None:
    """Parse an age such as ``90d``; None for another text."""
    found = _AGE(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def _require_text(name: str, text: str | None) -> None:
    if text is None:
        return
    if not text or "\0" in text:
        raise SettingsError(f"{name} must not be empty or contain the character NUL, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{name} must be UTF-8, got {text!r}") from None


def _require_time(name: str, time: datetime | None) -> datetime | None:
    if time is None:
        return None
    if time.tzinfo is None:
        raise SettingsError(f"{name} needs a time zone, got {time}")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise SettingsError(f"{name} is outside the years 1 to 9999 in UTC, got {time}") from None


def _like(part: str) -> str:
    """The pattern of LIKE for texts with this part, in which ``*`` stands for any text."""
    return "%" + _SPECIAL.sub(r"\\\g<0>", part).replace("*", "%") + "%"


def _parsed_subject(text: str) -> tuple[str, str | None]:
    """The type and the id of a subject; None for all ids."""
    if "/" in text:
        return parse_subject_key(text)
    try:
        return unquote(text, errors="strict"), None
    except UnicodeDecodeError:
        raise SettingsError(f"{text!r} is no TYPE: a percent-encoded part is no UTF-8") from None


def _time(text: str) -> datetime:
    try:
        if (age := age_of(text)) is not None:
            return datetime.now(UTC) - age
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{text!r} is no time in ISO 8601, such as 2026-11-24T18:00Z, and no age, such as 90d"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise SettingsError(f"{text!r} is no id of an event, a UUID") from None
