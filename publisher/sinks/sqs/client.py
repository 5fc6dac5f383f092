"""The client of the AWS SDK for one queue. It blocks, so call it in a worker thread."""

from typing import Any, Final

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]

from dsql_outbox.outbox import SettingsError, SinkUnavailable

from .url import SqsSettings

# boto3 and botocore create their classes at run time, so there are no types.
_sdk: Any = boto3
_make_config: Any = botocore.config.Config
_errors: Any = botocore.exceptions

_REFUSED: Final = ("InvalidMessageContents", "BatchRequestTooLong", "InvalidParameterValue")
"""Suffixes of error codes that blame the messages of a request."""

_QUEUE: Final = ("NonExistentQueue", "QueueDoesNotExist", "AccessDenied", "Throttl", "KMS", "Kms")
"""Parts of error codes that blame the queue, its key, or the rights and the rate of this client.

Other codes blame SQS or the credentials. SQS may report these ones for an entry with
``SenderFault``, but the message is not at fault.
"""


class RequestRefused(Exception):  # noqa: N818 - reads as what happened
    """SQS refused a whole request, because one of its messages breaks a rule."""


class QueueUnavailable(Exception):  # noqa: N818 - reads as what happened
    """The queue takes no message of this client now."""


def blames_queue(code: str) -> bool:
    """Whether an error code is about the queue, and neither about a message nor about SQS."""
    return any(part in code for part in _QUEUE)


class SqsClient:
    """Sends requests to a queue; each takes the timeout of the settings at most.

    Several threads may use it at the same time, over `connections` connections.
    """

    def __init__(self, settings: SqsSettings, connections: int) -> None:
        self._settings = settings
        self._connections = connections
        self._queue_url = settings.url
        self._client: Any = None

    def open(self) -> None:
        """Create the client, and ask SQS for the URL of a queue that is given by name.

        Raises `SettingsError` if no region is known, and `SinkUnavailable` when the
        queue does not exist or SQS cannot be reached.
        """
        settings = self._settings
        config = _make_config(
            # Half for the connection, half for the answer. The relay retries, not the SDK.
            connect_timeout=settings.timeout / 2,
            read_timeout=settings.timeout / 2,
            max_pool_connections=self._connections,
            retries={"total_max_attempts": 1},
            user_agent_extra="dsql-outbox",
        )
        place = {"region_name": settings.region, "endpoint_url": settings.endpoint}
        try:
            self._client = _sdk.session.Session().client("sqs", config=config, **place)
            if self._queue_url is None:
                self._queue_url = self._client.get_queue_url(QueueName=settings.name)["QueueUrl"]
        except _errors.NoRegionError as error:
            raise SettingsError(f"{settings}: which region? add ?region=..") from error
        except (_errors.BotoCoreError, _errors.ClientError) as error:
            raise self._unavailable(error) from error

    def send(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Call SendMessageBatch and return its answer.

        Raises `RequestRefused` if SQS refuses the whole request because of a message,
        `QueueUnavailable` because of the queue, and `SinkUnavailable` for any other failure.
        """
        try:
            answer: dict[str, Any] = self._client.send_message_batch(
                QueueUrl=self._queue_url, Entries=entries
            )
        except _errors.ClientError as error:
            if _code(error).endswith(_REFUSED):
                raise RequestRefused(_text(error)) from error
            if blames_queue(_code(error)):
                raise QueueUnavailable(_text(error)) from error
            raise self._unavailable(error) from error
        except _errors.BotoCoreError as error:
            raise self._unavailable(error) from error
        return answer

    def ask(self) -> None:
        """Ask SQS for the queue; raises `SinkUnavailable` if it cannot be reached.

        An answer about the queue, such as a missing right to ask, is an answer.
        """
        try:
            self._client.get_queue_url(QueueName=self._settings.name)
        except _errors.ClientError as error:
            if not blames_queue(_code(error)):
                raise self._unavailable(error) from error
        except _errors.BotoCoreError as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def _unavailable(self, error: Any) -> SinkUnavailable:
        text = _text(error) if isinstance(error, _errors.ClientError) else error
        return SinkUnavailable(f"{self._settings} cannot be used: {text}")


def _code(error: Any) -> str:
    return str(error.response["Error"].get("Code", ""))


def _text(error: Any) -> str:
    return f"{error.response['Error'].get('Message') or 'no reason given'} ({_code(error)})"
