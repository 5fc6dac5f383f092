"""The AWS SDK's client for one queue. It blocks: call it in a thread."""

from typing import Any, Final

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]

from dsql_outbox.outbox import SettingsError, SinkUnavailable

from .url import SqsSettings

# boto3 and botocore make their classes from data, and have no types.
_sdk: Any = boto3
_make_config: Any = botocore.config.Config
_errors: Any = botocore.exceptions

_REFUSED: Final = ("InvalidMessageContents", "BatchRequestTooLong", "InvalidParameterValue")
"""Ends of error codes that tell of the messages; all others tell of SQS, or of our rights."""


class RequestRefused(Exception):  # noqa: N818 - reads as what happened
    """SQS takes none of a request's messages, since one of them breaks a rule."""


class SqsClient:
    """Sends requests; each takes the settings' timeout at most. Safe in several threads."""

    def __init__(self, settings: SqsSettings, connections: int) -> None:
        self._settings = settings
        self._connections = connections
        self._queue_url = settings.url
        self._client: Any = None

    def open(self) -> None:
        """Make the client, and look the queue up if only its name is known.

        Raises `SettingsError` without a region, `SinkUnavailable` when there is
        no such queue or SQS cannot be reached.
        """
        settings = self._settings
        config = _make_config(
            # Half for the connection and half for the answer; the relay is who tries again.
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
        """SendMessageBatch and its answer; raises `RequestRefused` or `SinkUnavailable`."""
        try:
            answer: dict[str, Any] = self._client.send_message_batch(
                QueueUrl=self._queue_url, Entries=entries
            )
        except _errors.ClientError as error:
            if _code(error).endswith(_REFUSED):
                raise RequestRefused(_text(error)) from error
            raise self._unavailable(error) from error
        except _errors.BotoCoreError as error:
            raise self._unavailable(error) from error
        return answer

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
