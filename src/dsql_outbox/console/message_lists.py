"""The lists of dead letters and of failures, with their filters."""

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher import FailureFilter, FailureKey, LetterFilter, LetterKey

from .console_state import console_of
from .layout import page
from .operator_commands import option


async def dead_letters(request: Request) -> Response:
    """Answer a page of dead letters."""
    console = console_of(request)
    given = {name: _given(request, name) for name in ("key", "topic", "error", "since", "until")}
    which = LetterFilter(
        subject=given["key"],
        topic=given["topic"],
        error=given["error"],
        since=_instant(given["since"]),
        until=_instant(given["until"]),
    )
    after = _letter_key(request)
    found = await (console.letters.page(which, after) if after else console.letters.page(which))
    options = _options(given) or ["--all"]
    return page(
        request,
        "dead_letters.html",
        found=found,
        given=given,
        dry_run=console.commands.replay_letters(*options, "--dry-run"),
        replay_all=console.commands.replay_letters(*options),
        after=found.after and f"{found.after.event_id}@{found.after.died_at}",
        is_first=after is None,
    )


async def failures(request: Request) -> Response:
    """Answer a page of failures."""
    console = console_of(request)
    given = {name: _given(request, name) for name in ("key", "topic")}
    blocked = _given(request, "blocked") is not None
    which = FailureFilter(subject=given["key"], topic=given["topic"], blocked=blocked)
    after = _failure_key(request)
    found = await (console.failures.page(which, after) if after else console.failures.page(which))
    options = _options(given)
    options += ["--blocked"] if blocked else []
    options = options or ["--all"]
    return page(
        request,
        "failures.html",
        found=found,
        given=given,
        blocked=blocked,
        retry_all=console.commands.retry(*options),
        after=found.after and f"{found.after.event_id}@{found.after.position}",
        is_first=after is None,
    )


def _options(given: Mapping[str, str | None]) -> list[str]:
    return [option(f"--{name}", value) for name, value in given.items() if value]


def _given(request: Request, name: str) -> str | None:
    text = request.query_params.get(name, "").strip()
    if "\0" in text:
        raise SettingsError(f"the filter {name} must not contain the character NUL")
    return text or None


def _instant(text: str | None) -> datetime | None:
    """A time in ISO 8601; without a time zone it is UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{text} is not a time in ISO 8601, such as 2026-11-24T10:00"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _letter_key(request: Request) -> LetterKey | None:
    event_id, died_at = _after(request)
    return None if event_id is None else LetterKey(event_id, died_at or None)


def _failure_key(request: Request) -> FailureKey | None:
    event_id, position = _after(request)
    if event_id is None:
        return None
    try:
        return FailureKey(event_id, int(position))
    except ValueError as error:
        raise _bad_place() from error


def _after(request: Request) -> tuple[UUID | None, str]:
    text, _, rest = (_given(request, "after") or "").partition("@")
    try:
        return (UUID(text) if text else None), rest
    except ValueError as error:
        raise _bad_place() from error


def _bad_place() -> SettingsError:
    return SettingsError("the place in the list is malformed: start again from the first page")
