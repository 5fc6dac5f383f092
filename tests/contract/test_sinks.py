"""The contract suite on each of our sinks."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from tests.support.brokers.broker_faults import (
    jsonl_tears_the_line,
    kafka_loses_the_answer,
    kafka_refuses,
    losing_answers,
    memory_fails,
    nats_loses_the_answer,
    nats_refuses,
    rabbitmq_loses_the_answer,
    rabbitmq_refuses,
    redis_refuses,
    sns_loses_the_answer,
    sqs_loses_the_answer,
)
from tests.support.brokers.running_broker import BROKERS, URL

from dsql_outbox.testing.sink_contract import OpenStage, SinkContract

FAULTS: Final[dict[str, tuple[Callable[..., Any], list[str]]]] = {
    "memory refuses": (partial(memory_fails, "refused"), []),
    "memory loses the answer": (partial(memory_fails, "unanswered"), []),
    "jsonl tears the line": (jsonl_tears_the_line, ["jsonl_broker"]),
    "nats refuses": (nats_refuses, ["nats_broker"]),
    "nats loses the answer": (nats_loses_the_answer, ["nats_place", "nats_proxy"]),
    "kafka refuses": (kafka_refuses, ["kafka_cluster"]),
    "redis refuses": (redis_refuses, ["redis_broker"]),
    "redis loses the answer": (
        partial(losing_answers, across_topics=False),
        ["redis_broker", "redis_proxy"],
    ),
    "sqs_fifo loses the answer": (sqs_loses_the_answer, ["sqs_server", "sqs_proxy"]),
    "sns_fifo loses the answer": (sns_loses_the_answer, ["sns_fifo_broker", "sqs_proxy"]),
    "kafka loses the answer": (kafka_loses_the_answer, ["kafka_mock"]),
    "rabbitmq refuses": (rabbitmq_refuses, ["rabbitmq_broker"]),
    "rabbitmq loses the answer": (
        rabbitmq_loses_the_answer,
        ["rabbitmq_broker", "rabbitmq_proxy"],
    ),
}


class TestEverySink(SinkContract):
    """`broker` of conftest.py is each broker in turn."""

    # The faults of Kafka need a broker that tells clients to come through a proxy.
    @pytest.fixture(
        params=[
            n for n in FAULTS if n.split()[0] in BROKERS and not (URL and n.startswith("kafka"))
        ]
    )
    def open_stage(self, request: pytest.FixtureRequest) -> OpenStage:
        """Each fault that a broker of ours can have at one message, in turn."""
        stage, fixtures = FAULTS[request.param]
        return partial(stage, *map(request.getfixturevalue, fixtures))
