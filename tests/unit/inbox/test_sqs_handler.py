"""Partial batch responses: what failed is reported, and a message group keeps its order."""

import json
from typing import Any
from uuid import uuid4

from dsql_outbox.inbox import Received, sqs_handler


def record(n: int, group: str | None = None) -> dict[str, Any]:
    event_id = str(uuid4())
    own = {
        "id": event_id,
        "subject": f"Loan/{group}",
        "source": "/shop",
        "position": str(n + 1),
        "previousposition": str(n),
    }
    texts = {"cloudevent": json.dumps(own), "dedupe-id": event_id, "topic": "events.LoanPaid"}
    return {
        "messageId": f"m{n}",
        "body": json.dumps({"n": n}),
        "attributes": {} if group is None else {"MessageGroupId": group},
        "messageAttributes": {
            name: {"dataType": "String", "stringValue": text} for name, text in texts.items()
        },
    }


def reported(*records: dict[str, Any], fails: set[int]) -> tuple[list[str], list[int]]:
    """The failures that are reported, and the messages that were handled."""
    handled: list[int] = []

    def handle(message: Received) -> None:
        n = json.loads(message.data)["n"]
        handled.append(n)
        if n in fails:
            raise RuntimeError

    answer = sqs_handler(handle)({"Records": records}, None)
    return [each["itemIdentifier"] for each in answer["batchItemFailures"]], handled


def test_nothing_is_reported_when_all_succeed() -> None:
    assert reported(record(0), record(1), fails=set()) == ([], [0, 1])


def test_only_the_failed_records_of_a_standard_queue_are_reported() -> None:
    assert reported(record(0), record(1), record(2), fails={1}) == (["m1"], [0, 1, 2])


def test_the_rest_of_a_failed_group_is_reported_and_not_handled() -> None:
    records = [record(n, group) for n, group in enumerate("abaab")]
    assert reported(*records, fails={2}) == (["m2", "m3"], [0, 1, 2, 4])


def test_a_record_of_another_sender_fails_alone() -> None:
    other = record(0, "a") | {"messageAttributes": {}}
    assert reported(other, record(1, "a"), record(2, "b"), fails=set()) == (["m0", "m1"], [2])
