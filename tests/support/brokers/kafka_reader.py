"""What a consumer finds in a Kafka broker."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

WAIT = 10.0  # seconds


Ends = dict[tuple[str, int], int]
"""The offset behind the last message of each topic's partitions."""


def read_ends(bootstrap: str) -> Ends:
    """The ends now."""
    from confluent_kafka import TopicPartition

    consumer = _consumer(bootstrap)
    try:
        return {
            place: consumer.get_watermark_offsets(TopicPartition(*place), WAIT)[1]
            for place in _partitions(consumer)
        }
    finally:
        consumer.close()


def _consumer(bootstrap: str) -> "Consumer":
    from confluent_kafka import Consumer

    settings = {"bootstrap.servers": bootstrap, "group.id": "tests", "log_level": 0}
    reading = {"enable.partition.eof": True, "fetch.wait.max.ms": 10, "enable.auto.commit": False}
    return Consumer({**settings, **reading})


def _partitions(consumer: "Consumer") -> set[tuple[str, int]]:
    topics = consumer.list_topics(timeout=WAIT).topics
    ours = [name for name in topics if not name.startswith("__")]
    return {(name, n) for name in ours for n in topics[name].partitions}


def read_all(bootstrap: str, behind: Ends | None = None) -> "list[Message]":
    """Every message of every topic, by the time at which it was sent.

    With `behind`, only those that came after these ends.
    """
    return sorted(read_partitions(bootstrap, behind), key=lambda m: m.timestamp()[1])


def read_partitions(
    bootstrap: str, behind: Ends | None = None, topic: str | None = None
) -> "list[Message]":
    """The same, one partition after the other, each in its own order; of one topic, if given."""
    from confluent_kafka import KafkaError, TopicPartition

    starts = behind or {}
    consumer = _consumer(bootstrap)
    try:
        open_ends = {place for place in _partitions(consumer) if topic in (None, place[0])}
        consumer.assign([TopicPartition(*place, starts.get(place, 0)) for place in open_ends])
        found: list[Message] = []
        while open_ends:
            message = consumer.poll(WAIT)
            assert message is not None, f"{len(found)} messages, and no end after {WAIT} s"
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_ends.discard((message.topic(), message.partition()))
    finally:
        consumer.close()
    return sorted(found, key=lambda m: (m.topic(), m.partition(), m.offset()))
