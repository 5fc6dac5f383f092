"""Messages of one subject for a read model: several in one transaction, in order, each once."""

from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import MemoryOutbox, OneShard, in_virtual_time

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher.relay import applier
from dsql_outbox.publisher.relay.applier import Nowhere
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.schema.session import FunctionFailed

HOT, OTHERS = 200, 30


class Model(MemoryOutbox):
    """An outbox whose transactions apply messages to a model."""

    def __init__(self, sick: int, times: float) -> None:
        super().__init__()
        self.committed: list[list[str]] = []
        """The messages of each transaction that has committed."""
        self.letters: list[Letter] = []
        self._sick, self._left = sick, times
        self.insert([*chain("hot", [*range(1, HOT + 1)])])
        self.insert([row(f"other-{n}", HOT + n) for n in range(1, OTHERS + 1)])

    async def function(self, changes: list[str], message: Message) -> None:
        """Apply a message."""
        await anyio.sleep(0.001)
        number = message.event_id.int
        if number == self._sick and self._left:
            self._left -= 1
            raise ValueError
        changes.append(f"{message.key} {number}")

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,  # noqa: ARG002 - it costs no time here
    ) -> bool:
        """See `Store.apply`."""
        changes: list[str] = []
        for call in calls:
            try:
                await call(changes)  # type: ignore[arg-type]
            except ValueError as error:
                raise FunctionFailed(error) from error
        await self.delete(rows)
        self.committed.append(changes)
        return True

    async def bury(self, letters: Collection[Letter]) -> None:
        """See `Store.bury`."""
        await self.delete([each.row for each in letters])
        self.letters += letters


async def applied(store: Model) -> None:
    settings = TunedSettings(backoff_base=1.0, attempts=3)
    relay = Relay(store, Nowhere(), settings, OneShard(), apply=store.function)  # type: ignore[arg-type]
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.run)
            while store.rows:  # noqa: ASYNC110 - the time is virtual
                await anyio.sleep(0.01)
            relay.stop()


@pytest.mark.parametrize("batch", [64, 4])
@pytest.mark.parametrize(("sick", "times"), [(0, 0), (1, 1), (7, 2), (64, 1), (65, 1), (200, 1)])
def test_a_hot_subject_is_applied_in_order_and_others_take_turns(
    monkeypatch: pytest.MonkeyPatch, sick: int, times: int, batch: int
) -> None:
    monkeypatch.setattr(applier, "_BATCH", batch)
    store = Model(sick, times)
    in_virtual_time(applied(store))
    flat = [each for transaction in store.committed for each in transaction]
    hot = [each for each in flat if each.startswith("Car/hot ")]
    assert hot == [f"Car/hot {n}" for n in range(1, HOT + 1)]
    others = {f"Car/other-{n} {HOT + n}" for n in range(1, OTHERS + 1)}
    assert sorted(set(flat) - set(hot)) == sorted(others)
    assert len(flat) == HOT + OTHERS
    assert len(store.committed) <= 3 * (HOT + OTHERS) / batch + 12 * times
    # They are not behind the run of the hot one, nor behind its failure.
    last = max(flat.index(each) for each in others)
    assert last < (64 if batch == 4 else HOT)


@pytest.mark.parametrize("batch", [64, 4])
@pytest.mark.parametrize("sick", [2, 5, 30, 64, 130])
def test_a_message_in_the_middle_of_a_run_that_always_fails_is_given_up_alone(
    monkeypatch: pytest.MonkeyPatch, sick: int, batch: int
) -> None:
    """Those before it in its run are applied, and those behind it after its burial."""
    monkeypatch.setattr(applier, "_BATCH", batch)
    store = Model(sick, float("inf"))
    in_virtual_time(applied(store))
    assert [(each.row.position, each.attempts) for each in store.letters] == [(sick, 3)]
    flat = [each for transaction in store.committed for each in transaction]
    hot = [each for each in flat if each.startswith("Car/hot ")]
    assert hot == [f"Car/hot {n}" for n in range(1, HOT + 1) if n != sick]
    assert len(flat) == HOT + OTHERS - 1
