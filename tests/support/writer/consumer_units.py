"""Consumers as callers with sessions: each unit of work is what follows from a message.

A message is handled by `once`, by `once_many` with the other units of its caller, or by `remember`
in a transaction that the caller commits. One that was not handled may be delivered again, without
the harms of its function. At the end each message is remembered if and only if the rows and events
of its unit are stored.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from dsql_outbox.inbox import AsyncInbox, Handled, Inbox, Received, once
from dsql_outbox.outbox import Database, OutcomeUnknown, Receipt
from dsql_outbox.writer import AsyncWriter, Writer

from .interrupted_calls import Interrupt, Interrupted
from .session_units import (
    CancelSoon,
    CutShort,
    Ended,
    LostConnection,
    ReturnedAnyway,
    SessionCall,
    Unit,
    Way,
    async_source,
    commit_alone,
    commit_alone_async,
    do_unit,
    do_unit_async,
    outcomes_of,
    source_of,
)

TIMEOUT: Final = 2.0
once.INBOX = once.INBOX._replace(base=0.001, cap=0.01)  # type: ignore[misc]  # a quick schedule

CONSUMERS: Final[Sequence[Way]] = [
    *[Way("once", "psycopg", each, is_async=False) for each in ("inbox", "pool", "session")],
    *[Way("once", "psycopg", each, is_async=True) for each in ("inbox", "pool", "session")],
    Way("once", "asyncpg", "session", is_async=True),
    Way("once", "psycopg2", "session", is_async=False),
    Way("once_many", "psycopg", "inbox", is_async=False),
    Way("once_many", "psycopg", "inbox", is_async=True),
    Way("once_many", "psycopg", "pool", is_async=False),
    Way("once_many", "asyncpg", "session", is_async=True),
    Way("once_many", "psycopg2", "session", is_async=False),
    Way("remember", "psycopg", "connection", is_async=False),
    Way("remember", "psycopg", "connection", is_async=True),
    Way("remember", "asyncpg", "connection", is_async=True),
    Way("remember", "psycopg2", "connection", is_async=False),
    Way("remember", "psycopg", "session", is_async=False),
    Way("remember", "asyncpg", "session", is_async=True),
]


class HandledBefore(Exception):
    """A message was handled by an earlier delivery, or by an attempt whose COMMIT was lost."""


class Overtaken(ReturnedAnyway):
    """A message was handled before an earlier one of its subject."""


def message_id(unit: Unit) -> UUID:
    """The id of the message of a unit."""
    return UUID(int=unit.events[0].header.saved_date or 0)


def message_of(unit: Unit) -> Received:
    """The message of a unit: two subjects get the messages of a caller by turns."""
    saved = unit.events[0].header.saved_date or 0
    found = message_id(unit)
    return Received(
        id=found,
        dedupe_id=str(found),
        source="/campaign",
        topic="events",
        subject_type="Caller",
        subject_id=f"{saved // 10}-{saved % 2}",
        position=saved + 1,
        previous_position=0,
        replay=None,
        trace={},
        headers={},
        data=b"{}",
    )


@dataclass(frozen=True)
class ConsumerCall(SessionCall):
    """A consumer that gets the messages of its units in order."""

    def run(self, database: Database, url: str) -> list[Ended]:
        if self.way.is_async:
            return asyncio.run(self._consume_async(database, url))
        with (
            Writer(database, self.settings) as writer,
            source_of(self.way, url, self.kind) as source,
            Inbox(database, "campaign", **_sessions(self.way, source)) as inbox,
        ):
            deliver = partial(self._deliver, writer, inbox, source)
            first = deliver(self.units)
            return _merged(self.units, first, deliver(_again(self.units, first)))

    def _deliver(
        self, writer: Writer, inbox: Any, source: Any, units: Sequence[Unit]
    ) -> list[Ended]:
        def work(swallowed: list[BaseException], unit: Unit, session: Any) -> list[Receipt]:
            return do_unit(writer, session, unit, swallowed)

        if self.way.verb == "once_many":
            by_id = {message_id(unit): unit for unit in units}
            call = partial(
                inbox.once_many,
                [message_of(unit) for unit in units],
                lambda session, message: work([], by_id[message.id], session),
                timeout=self.timeout or TIMEOUT,
            )
            return _ends_of_batch(units, _ended(call, units, source)) if units else []
        ends: list[Ended] = []
        for unit in units:
            swallowed: list[BaseException] = []
            message, its_work = message_of(unit), partial(work, swallowed, unit)

            def remembering(
                session: Any, message: Any = message, its_work: Any = its_work
            ) -> list[Receipt]:
                if inbox.remember(session, message) is None:
                    raise HandledBefore
                done: list[Receipt] = its_work(session)
                return done

            if self.way.verb == "remember":
                call = partial(commit_alone, source, remembering, unit, swallowed)
            else:
                call = partial(inbox.once, message, its_work, timeout=self.timeout or TIMEOUT)
            ends.append(_end_of_one(unit, _ended(call, [unit], source)))
        return ends

    async def _consume_async(self, database: Database, url: str) -> list[Ended]:
        async with (
            AsyncWriter(database, self.settings) as writer,
            async_source(self.way, url, self.kind) as source,
            AsyncInbox(database, "campaign", **_sessions(self.way, source)) as inbox,
        ):
            deliver = partial(self._deliver_async, writer, inbox, source)
            first = await deliver(self.units)
            return _merged(self.units, first, await deliver(_again(self.units, first)))

    async def _deliver_async(
        self, writer: AsyncWriter, inbox: Any, source: Any, units: Sequence[Unit]
    ) -> list[Ended]:
        if self.way.verb == "once_many":
            return (
                _ends_of_batch(units, await self._end_async(writer, inbox, source, units))
                if units
                else []
            )
        return [
            _end_of_one(unit, await self._end_async(writer, inbox, source, [unit]))
            for unit in units
        ]

    async def _end_async(
        self, writer: AsyncWriter, inbox: Any, source: Any, units: Sequence[Unit]
    ) -> Any:
        """Each is a task of its own, which it may cancel."""

        async def run() -> Any:
            cancel_soon = CancelSoon(units[0])
            swallowed: list[BaseException] = []
            by_id = {message_id(unit): unit for unit in units}

            async def work(session: Any, message: Received) -> list[Receipt]:
                unit = by_id[message.id]
                return await do_unit_async(writer, session, unit, swallowed, cancel_soon)

            async def remembering(session: Any) -> list[Receipt]:
                if await inbox.remember(session, message_of(units[0])) is None:
                    raise HandledBefore
                return await work(session, message_of(units[0]))

            messages = [message_of(unit) for unit in units]
            timeout = self.timeout or TIMEOUT
            call: Awaitable[Any]
            match self.way.verb:
                case "once_many":
                    call = inbox.once_many(messages, work, timeout=timeout)
                case "once":
                    its_work = partial(_swapped, work, messages[0])
                    call = inbox.once(messages[0], its_work, timeout=timeout)
                case _:
                    call = commit_alone_async(source, remembering, units[0], swallowed, timeout)
            try:
                ended: Any = await call
            except Exception as error:  # noqa: BLE001 - it is compared with the tables
                ended = error
            except asyncio.CancelledError:
                ended = CutShort()
            cancel_soon.stop()
            return LostConnection() if getattr(source, "lent", 0) else ended

        return await asyncio.create_task(run())


def _swapped(work: Callable[[Any, Any], Awaitable[Any]], message: Any, session: Any) -> Any:
    return work(session, message)


def _ended(call: Callable[[], Any], units: Sequence[Unit], source: Any) -> Any:
    interrupt = units[0].interrupt if units else None
    try:
        with nullcontext() if interrupt is None else Interrupted(interrupt, []):
            ended = call()
    except Exception as error:  # noqa: BLE001 - it is compared with the tables
        ended = error
    except Interrupt:
        ended = CutShort()
    return LostConnection() if getattr(source, "lent", 0) else ended


def _end_of_one(unit: Unit, ended: Any) -> Ended:
    """How a unit ended, from what a call returned or raised."""
    if isinstance(ended, Exception):
        in_doubt = any("may have been committed" in each for each in _notes(ended))
        return OutcomeUnknown(unit.events[0].id) if in_doubt else ended
    if isinstance(ended, Handled):
        if not ended.ran:
            return HandledBefore()
        ended = ended.value
    return outcomes_of(ended, unit)


def _notes(error: Exception) -> Sequence[str]:
    notes: Sequence[str] = getattr(error, "__notes__", ())
    return notes


def _ends_of_batch(units: Sequence[Unit], ended: Any) -> list[Ended]:
    ends: list[Any] = [ended] * len(units) if isinstance(ended, Exception) else ended
    found = [_end_of_one(unit, end) for unit, end in zip(units, ends, strict=True)]
    stopped: set[str] = set()
    for n, unit in enumerate(units):
        subject = message_of(unit).key
        if isinstance(ends[n], Exception):
            stopped.add(subject)
        elif ends[n].ran and subject in stopped:
            found[n] = Overtaken()
    return found


def _again(units: Sequence[Unit], ends: Sequence[Ended]) -> list[Unit]:
    """What is delivered again: calm, as if the harm of its function had passed."""
    calm = {"raises": False, "swallows": False, "cancels": None, "interrupt": None}
    return [
        replace(unit, **calm)  # type: ignore[arg-type]
        for unit, end in zip(units, ends, strict=True)
        if isinstance(end, Exception) and unit.persists
    ]


def _merged(units: Sequence[Unit], first: Sequence[Ended], second: Sequence[Ended]) -> list[Ended]:
    """How each unit ended at last. Who says that it was handled before must be right."""
    told = list(first)
    later = dict(zip([message_id(unit) for unit in _again(units, first)], second, strict=True))
    for n, unit in enumerate(units):
        end = later.get(message_id(unit))
        if end is None:
            continue
        was_open = isinstance(first[n], OutcomeUnknown | CutShort | HandledBefore)
        if isinstance(end, HandledBefore) and not was_open:
            told[n] = ReturnedAnyway()
        elif isinstance(end, HandledBefore) or not (was_open and isinstance(end, Exception)):
            told[n] = end
        if isinstance(first[n], LostConnection | Overtaken):
            told[n] = first[n]
    return told


def _sessions(way: Way, source: Any) -> dict[str, Any]:
    has_own = way.verb == "remember" or way.through == "inbox"
    return {} if has_own else {"sessions": source}
