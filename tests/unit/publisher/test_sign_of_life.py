"""The sign of life of a publisher: an idle relay gives it, a stuck one does not."""

import anyio
import pytest

from dsql_outbox.observability.facts import RelayProgress
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher, publisher
from dsql_outbox.publisher.relay.memory.topics import NamedTopics
from dsql_outbox.publisher.relay.relay import Relayed
from dsql_outbox.testing import MemorySink

pytestmark = pytest.mark.anyio


class StuckRelay:
    """A relay that makes no progress the first `times` times that it is asked."""

    relayed = Relayed()
    is_sink_available = True
    is_database_available = True
    held = 0
    paused_topics = NamedTopics(["events.A"], 0)

    def __init__(self, times: int) -> None:
        self.left = times

    @property
    def progresses(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("times", [0, 3])
async def test_a_relay_is_silent_until_it_progresses(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr(publisher, "_REPORT", 0.0)
    relay = StuckRelay(times)
    async with anyio.create_task_group() as tasks:
        left: list[int] = []

        def take(fact: object) -> None:
            assert fact == RelayProgress(statements=0, paused=["events.A"], leases_kept=False)
            left.append(relay.left)
            tasks.cancel_scope.cancel()

        found = Publisher(Database("postgresql://x"), MemorySink(), hooks=[take])
        with anyio.fail_after(5):
            await found._report(relay)  # type: ignore[arg-type]
    assert left == [-1], "the first report is told when it progresses, and at once then"
