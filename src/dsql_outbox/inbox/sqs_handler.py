"""An AWS Lambda handler for the records of an SQS queue."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from .broker_messages import from_sqs
from .received import Received

logger: Final = logging.getLogger("dsql_outbox")

Batch = Mapping[str, Any]
"""The event of Lambda: ``{"Records": [..]}``."""


def sqs_handler(
    handle: Callable[[Received], object],
) -> Callable[[Batch, object], dict[str, list[dict[str, str]]]]:
    """Return a handler that calls `handle` for each record, and reports those that failed.

    The event source mapping needs ``ReportBatchItemFailures``. SQS delivers the reported
    records again. A record failed if `handle` raised, or if it is no message of a
    publisher; SQS moves such a record to the queue's dead letters in the end.

    For a FIFO queue, the rest of a message group is reported too, and not handled, after
    a record of that group failed: else a later message would overtake it. Records of
    other groups go on.
    """

    def handler(event: Batch, context: object) -> dict[str, list[dict[str, str]]]:
        del context
        failed: list[str] = []
        stopped: set[str] = set()
        for record in event["Records"]:
            group = record.get("attributes", {}).get("MessageGroupId")
            if group in stopped or not _is_handled(handle, record):
                failed.append(record["messageId"])
                if group is not None:
                    stopped.add(group)
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    return handler


def _is_handled(handle: Callable[[Received], object], record: Mapping[str, Any]) -> bool:
    try:
        handle(from_sqs(record))
    except Exception as error:  # noqa: BLE001 - reported to SQS, which delivers it again
        logger.warning("SQS message %s failed: %s", record["messageId"], type(error).__name__)
        return False
    return True
