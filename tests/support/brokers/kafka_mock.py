"""librdkafka's own mock cluster, and the errors it gives on request.

The package for Python does not show these functions; its library has them
(``rdkafka_mock.h``). The cluster is in this process and speaks over TCP.
"""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import files
from typing import Any

PRODUCE = 0  # requests by their numbers in Kafka's protocol
INIT_PRODUCER_ID = 22
_PRODUCER = 0
_FOREVER = 600  # seconds; no test takes as long


class MockKafka:
    """A cluster of brokers numbered from 1."""

    def __init__(self, library: Any, cluster: Any) -> None:
        self._library = library
        self._cluster = cluster
        library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        bootstraps = library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.bootstrap: str = bootstraps.decode()

    def make_topic(self, name: str, partitions: int = 1) -> None:
        """Make a topic with one replica; partitions are led by the brokers in turn."""
        create = self._library.rd_kafka_mock_topic_create
        assert create(self._cluster, name.encode(), partitions, 1) == 0

    def assign_at_once(self) -> None:
        """Let the first member of a group have its partitions without waiting for others."""
        set_delay = self._library.rd_kafka_mock_group_initial_rebalance_delay_ms
        set_delay(self._cluster, ctypes.c_int32(0))

    def lead(self, name: str, broker: int) -> None:
        """Let the broker lead the first partition of the topic."""
        set_leader = self._library.rd_kafka_mock_partition_set_leader
        assert set_leader(self._cluster, name.encode(), 0, broker) == 0

    def refuse_topic(self, name: str, code: int) -> None:
        """Answer every question about the topic with an error; 0 ends that."""
        set_error = self._library.rd_kafka_mock_topic_set_error
        set_error(self._cluster, name.encode(), ctypes.c_int(code))

    def refuse_next(self, *codes: int, request: int = PRODUCE) -> None:
        """Answer the next requests, by default those to store messages, with these errors.

        They replace the errors that are left of an earlier call.
        """
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, ctypes.c_int16(request))
        errors = (ctypes.c_int * len(codes))(*codes)
        push = self._library.rd_kafka_mock_push_request_errors_array
        push(self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(codes)), errors)

    def answer_late(self, broker: int, seconds: float) -> None:
        """Let every answer of the broker take that long."""
        set_rtt = self._library.rd_kafka_mock_broker_set_rtt
        assert set_rtt(self._cluster, broker, round(seconds * 1000)) == 0

    @contextmanager
    def silent(self, broker: int) -> Generator[None]:
        """Let the broker store messages and answer nothing; its connections end with the block."""
        self.answer_late(broker, _FOREVER)
        try:
            yield
        finally:
            self.answer_late(broker, 0)
            with self.down(broker):
                pass

    @contextmanager
    def down(self, broker: int) -> Generator[None]:
        """Take the broker down for a while."""
        self.take_down(broker)
        try:
            yield
        finally:
            self.bring_up(broker)

    def take_down(self, broker: int) -> None:
        """Close the broker's connections, and refuse new ones."""
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, broker) == 0

    def bring_up(self, broker: int) -> None:
        """Let the broker answer again."""
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, broker) == 0


@contextmanager
def mock_kafka(brokers: int) -> Generator[MockKafka]:
    """A cluster for a while."""
    shipped = files("confluent-kafka") or []
    (path,) = [file.locate() for file in shipped if file.name.startswith("librdkafka-")]
    library: Any = ctypes.CDLL(str(path))
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(256)
    owner = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, None, error, ctypes.c_size_t(256)))
    assert owner.value, error.value
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(owner, brokers))
    try:
        yield MockKafka(library, cluster)
    finally:
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(owner)
