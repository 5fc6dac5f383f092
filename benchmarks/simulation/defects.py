"""Defects to plant in the publisher under test: the judge must find each of them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final
from unittest.mock import PropertyMock, patch

from dsql_outbox.outbox import LASTING, FailureKind
from dsql_outbox.publisher.operator.replay_positions import Candidate, Placed, Places
from dsql_outbox.publisher.outbox_rows import OutboxRow
from dsql_outbox.publisher.relay import reader
from dsql_outbox.publisher.relay.outcomes import Outcomes
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import PassedOver, Range, Reading
from dsql_outbox.publisher.sinks.port import NotAttempted, Outcome, Retry, Unavailable

from .outbox_model import Origin, Tables
from .publishers import Parts
from .relay_program import RelayProgram

Defect = Callable[[], AbstractContextManager[Any]]


def drop_a_delete() -> AbstractContextManager[Any]:
    """Every fifth DELETE does nothing, and reports success."""
    right, calls = Tables.delete, iter(range(1_000_000))

    def delete(tables: Tables, rows: Sequence[Any], origin: Origin) -> int:
        return len(rows) if next(calls) % 5 == 4 else right(tables, rows, origin)

    return patch.object(Tables, "delete", delete)


def reuse_a_key() -> AbstractContextManager[Any]:
    """A replay takes its position from the event alone, not from earlier replays."""

    def place(_: Places, candidates: Sequence[Candidate], _now: int) -> list[Placed]:
        return [Placed(each, each.event_id.int, 0) for each in candidates]

    return patch.object(Places, "place", place)


def renew_without_progress() -> AbstractContextManager[Any]:
    """The leases are renewed even if the relay is stuck."""
    return patch.object(Relay, "progresses", PropertyMock(return_value=True))


def count_an_outage() -> AbstractContextManager[Any]:
    """An error that is not the fault of the message counts as an attempt."""
    right = Outcomes.ended

    def ended(outcomes: Outcomes, subject: Any, outcome: Outcome) -> None:
        is_outage = isinstance(outcome, NotAttempted | Unavailable)
        right(outcomes, subject, Retry("an outage") if is_outage else outcome)

    return patch.object(Outcomes, "ended", ended)


def pass_over_the_first() -> AbstractContextManager[Any]:
    """A row is admitted though the row of its subject before it was not seen."""
    return patch.object(OutboxRow, "waits", PropertyMock(return_value=False))


def trust_the_host() -> AbstractContextManager[Any]:
    """The relay takes its time from the host's clock, not from the database's."""
    right = RelayProgram.__init__

    def make(program: RelayProgram, parts: Parts) -> None:
        class HostTime:
            """The store, with the time of the host."""

            def __getattr__(self, name: str) -> Any:
                return getattr(parts.store, name)

            async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
                reading = await parts.store.read(ranges, passed)
                return reading._replace(now=round(parts.host_clock() * 1_000_000))

        right(program, replace(parts, store=HostTime()))  # type: ignore[arg-type]

    return patch.object(RelayProgram, "__init__", make)


def end_at_a_refusal() -> AbstractContextManager[Any]:
    """A publisher ends with the error of a server that accepts no writes."""
    return patch.object(reader, "LASTING", LASTING | {FailureKind.READ_ONLY})


DEFECTS: Final[dict[str, Defect]] = {
    each.__name__: each
    for each in (
        drop_a_delete,
        reuse_a_key,
        renew_without_progress,
        count_an_outage,
        pass_over_the_first,
        trust_the_host,
        end_at_a_refusal,
    )
}
