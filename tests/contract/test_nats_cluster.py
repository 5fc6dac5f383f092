"""NATS as a cluster of three: replicas, a leader that dies, and a stream without a quorum."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import nats
import pytest
from tests.support.brokers.nats_cluster import NatsCluster, custom_server, nats_cluster

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Unavailable
from dsql_outbox.testing.sink_contract import deliver, new_message, published

pytestmark = pytest.mark.anyio


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[NatsCluster]:
    """Three servers of this test's own."""
    with nats_cluster(tmp_path) as found:
        yield found


async def stream_info(url: str) -> Any:
    """What a server says of the stream EVENTS."""
    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]
    try:
        return await client.jetstream().stream_info("EVENTS")
    finally:
        await client.close()


async def test_a_stream_gets_the_replicas_of_the_url(cluster: NatsCluster) -> None:
    url = cluster.url("n0")
    async with open_sink(f"{url}?stream=EVENTS&replicas=3") as sink:
        await deliver(sink, [new_message()])

    assert (await stream_info(url)).config.num_replicas == 3


async def test_replicas_on_a_server_that_is_alone_are_a_wrong_setting(tmp_path: Path) -> None:
    with (
        custom_server(tmp_path, "-js") as host,
        pytest.raises(SettingsError, match=r"cannot make stream EVENTS: replicas > 1 not supp"),
    ):
        async with open_sink(f"nats://{host}?stream=EVENTS&replicas=3"):
            pass


async def test_while_a_leader_is_elected_nothing_counts_against_messages_or_floods_the_log(
    cluster: NatsCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_sink(f"{cluster.url('n0')}?stream=EVENTS&replicas=3&timeout=20") as sink:
        await deliver(sink, [new_message()])
        leader = (await stream_info(cluster.url("n0"))).cluster.leader
        ours = next(name for name in cluster.names if name != leader)
        messages = [new_message(key=f"Loan/{n}") for n in range(100)]
        async with open_sink(f"{cluster.url(ours)}?timeout=2") as other:
            await deliver(other, [new_message()])
            cluster.kill(leader)
            outcomes = await published(other, messages)
            with anyio.fail_after(60):
                while (again := await published(other, messages)) != [Delivered()] * 100:
                    outcomes += again

    assert {type(outcome) for outcome in outcomes} <= {Delivered, Unavailable, NotAttempted}
    assert any(isinstance(outcome, Unavailable) for outcome in outcomes)
    texts = {outcome.error for outcome in outcomes if isinstance(outcome, Unavailable)}
    assert all("no leader" in text or "no quorum" in text for text in texts), texts
    lines = [record for record in caplog.records if cluster.url(ours)[7:] in record.getMessage()]
    assert len(lines) <= 1


async def test_a_stream_without_a_quorum_makes_its_topics_unavailable(
    cluster: NatsCluster,
) -> None:
    async with open_sink(f"{cluster.url('n0')}?stream=EVENTS&replicas=3&timeout=4") as sink:
        await deliver(sink, [new_message()])
        cluster.kill("n1")
        cluster.kill("n2")
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(3)])

    assert {type(outcome) for outcome in outcomes} == {Unavailable}
