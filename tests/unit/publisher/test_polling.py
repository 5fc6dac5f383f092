"""How often an idle publisher reads, and how often one whose database fails."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise

import psycopg
import pytest
from tests.support.parsed_options import params
from tests.support.publisher.virtual_relay import in_virtual_time

from dsql_outbox.outbox import Database
from dsql_outbox.publisher.relay.reader import Reader
from dsql_outbox.publisher.relay.state import RelayState
from dsql_outbox.publisher.relay.store import PassedOver, Range, RangeRead, Reading
from dsql_outbox.publisher.tuned_settings import TunedSettings

POSTGRES = Database("postgresql://db.example.com/shop")
CLUSTER = Database("dsql://app@abc.dsql.eu-west-1.on.aws/postgres")
SECONDS = 60.0
LONG_OUTAGE = 1.0


class Empty:
    """Tables without rows, or which nobody can read."""

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails
        self.read_at: list[float] = []

    async def read(self, ranges: Sequence[Range], _passed: PassedOver) -> Reading:
        now = asyncio.get_running_loop().time()
        self.read_at.append(now)
        if self._fails:
            raise psycopg.OperationalError("the server is away")
        return Reading(round(now * 1e6), [RangeRead([], each.after, False) for each in ranges])

    async def stored_failures(self, _shards: object) -> list[object]:
        return []

    async def paused_topics(self) -> Mapping[str, str]:
        return {}


class AllShards:
    """The leases of 16 shards."""

    def usable(self) -> Mapping[int, int]:
        return dict.fromkeys(range(16), 1)


def reads(settings: TunedSettings, *, fails: bool = False) -> list[float]:
    """The times of the reads of a publisher within `SECONDS`."""
    store = Empty(fails=fails)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        state = RelayState(loop.time)
        loop.call_later(SECONDS, state.stop)
        await Reader(state, store, AllShards(), settings).run()  # type: ignore[arg-type]

    in_virtual_time(run())
    return store.read_at


def pauses(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


@pytest.mark.parametrize(
    ("database", "given", "wanted"),
    [(POSTGRES, None, 0.05), (CLUSTER, None, 1.0), (POSTGRES, 3.0, 3.0), (CLUSTER, 0.2, 0.2)],
    ids=["postgres", "dsql", "given-postgres", "given-dsql"],
)
def test_an_idle_publisher_reads_every_idle_max_which_depends_on_the_database(
    database: Database, given: float | None, wanted: float
) -> None:
    settings = TunedSettings(idle_max=given).for_database(database)
    times = reads(settings)
    assert max(pauses(times)) == pytest.approx(wanted, rel=0.01)
    assert len(times) == pytest.approx(SECONDS / wanted, rel=0.1, abs=12), "one for all shards"


def test_a_database_that_fails_is_tried_soon_and_then_once_a_second() -> None:
    times = reads(TunedSettings().for_database(POSTGRES), fails=True)
    assert times[1] - times[0] < 0.2
    assert max(pauses(times)) <= LONG_OUTAGE + 0.01
    assert len(times) < SECONDS / LONG_OUTAGE + 8


def test_the_command_takes_the_longest_wait() -> None:
    assert params(["publish", "--idle-max", "0.25"])["idle_max"] == 0.25
    assert params(["publish"])["idle_max"] is None
