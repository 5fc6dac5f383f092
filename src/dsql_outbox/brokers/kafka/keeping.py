"""How Kafka keeps the messages of a topic: its replicas, and how many must have a message."""

from collections.abc import Collection
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, admin

from dsql_outbox.publisher.sinks.port import Keeping

from .url import KafkaSettings

_HIDDEN: Final = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)
_RULE: Final = "min.insync.replicas"
_REMEDY: Final = "use replication factor 3 and min.insync.replicas=2"


def topic_keepings(
    settings: KafkaSettings, options: dict[str, object], topics: Collection[str]
) -> list[Keeping]:
    """How these topics keep messages; a topic that does not exist is left out.

    It blocks. `options` log in, as those of a producer do. Raises `KafkaException` if no broker
    answers.
    """
    module: Any = admin
    client = module.AdminClient(options)
    client.poll(0)  # it may ask for a token
    known = client.list_topics(timeout=settings.timeout).topics
    copies = {
        name: min(len(part.replicas) for part in known[name].partitions.values())
        for name in sorted(topics)
        if name in known and known[name].partitions
    }
    asked = [
        module.ConfigResource(module.ResourceType.TOPIC, name)
        for name, count in copies.items()
        if count > 1
    ]
    answers: dict[Any, Any] = (
        client.describe_configs(asked, request_timeout=settings.timeout) if asked else {}
    )
    least = {resource.name: least_copies(answer) for resource, answer in answers.items()}
    return [keeping_of(name, count, least.get(name, 1)) for name, count in copies.items()]


def least_copies(answer: Any) -> int | str:
    """The value of min.insync.replicas, or the name of the error that hides it.

    Raises `KafkaException` for another error.
    """
    try:
        return int(answer.result()[_RULE].value)
    except KafkaException as error:
        if error.args[0].code() not in _HIDDEN:
            raise
        return str(error.args[0].name())


def keeping_of(name: str, copies: int, least: int | str) -> Keeping:
    """How a topic with so many replicas keeps messages, of which `least` must have each."""
    place, text = f"topic {name}", f"replication factor {copies}"
    if copies == 1:
        return Keeping(place, text, f"the loss of one broker takes them: {_REMEDY}")
    if isinstance(least, str):
        hidden = f"this principal may not read {_RULE} ({least}): it needs DescribeConfigs"
        return Keeping(place, f"{text}; {hidden}", is_known=False)
    text += f", {_RULE} {least}"
    if least == 1:
        remedy = f"a message counts as stored when one broker has it: {_REMEDY}"
        return Keeping(place, text, remedy)
    return Keeping(place, text)
