"""Messages to SQS, and its answers back."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import anyio
from anyio import to_thread

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.sinks.port import Delivered, NotAttempted, Outcome, Rejected, Retry

from .client import RequestRefused, SqsClient
from .entry import broken_rule, cut, make_entry
from .url import SqsSettings

_REQUESTS: Final = 8
"""Requests on their way at once, each in a thread: the AWS SDK blocks."""

_PASSING: Final = ("Throttl", "Kms", "KMS", "AccessDenied")
"""Parts of an entry's error code that an operator or time mends, whoever is said to be at fault."""


class SqsSink:
    """Publishes to one queue; a message is delivered when SQS has said so.

    Not `ordered`: entries of a request succeed or fail each for itself.
    """

    ordered = False
    system = "aws_sqs"

    def __init__(self, settings: SqsSettings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(_REQUESTS)
        self._client = SqsClient(settings, _REQUESTS)

    async def connect(self) -> None:
        """Connect; raises `SettingsError` without a region, `SinkUnavailable` without the queue."""
        await to_thread.run_sync(self._client.open)

    async def close(self) -> None:
        """Disconnect."""
        await to_thread.run_sync(self._client.close)

    async def publish(self, messages: Sequence[Message], /) -> list[Outcome]:
        """Publish, which takes twice the timeout at most; raises `SinkUnavailable`.

        It raises when a request failed and nothing was delivered. When
        something was, what was in that request is `NotAttempted`: stored or
        not, it counts against no message.
        """
        batch = _SqsBatch(len(messages), asyncio.get_running_loop().time() + self._settings.timeout)
        entries: list[dict[str, Any]] = []
        for index, message in enumerate(messages):
            entry = make_entry(str(index), message, is_fifo=self._settings.is_fifo)
            if rule := broken_rule(entry):
                batch.found[index] = Rejected(rule)
            else:
                entries.append(entry)
        async with anyio.create_task_group() as tasks:
            for request in cut(entries):
                tasks.start_soon(self._request, batch, request)
        if batch.failure is not None and Delivered() not in batch.found:
            raise batch.failure
        return [outcome or NotAttempted() for outcome in batch.found]

    async def _request(self, batch: "_SqsBatch", entries: list[dict[str, Any]]) -> None:
        async with self._turns:
            refused = await self._send(batch, entries)
        if refused is None:
            return
        if len(entries) == 1:
            batch.found[int(entries[0]["Id"])] = refused
            return
        for entry in entries:  # one of them is at fault, and SQS does not say which
            await self._request(batch, [entry])

    async def _send(self, batch: "_SqsBatch", entries: list[dict[str, Any]]) -> Rejected | None:
        """What SQS has against the whole request, if anything."""
        if batch.failure is not None or asyncio.get_running_loop().time() >= batch.deadline:
            return None
        try:
            batch.take(await to_thread.run_sync(self._client.send, entries))
        except SinkUnavailable as error:
            batch.failure = error
        except RequestRefused as error:
            return Rejected(f"refused by SQS: {error}")
        return None


class _SqsBatch:
    """What is known of messages: None is no word of the message itself."""

    def __init__(self, size: int, deadline: float) -> None:
        self.found: list[Outcome | None] = [None] * size
        self.deadline = deadline
        self.failure: SinkUnavailable | None = None

    def take(self, answer: dict[str, Any]) -> None:
        """Note what a request's answer says of each of its entries."""
        for success in answer.get("Successful", ()):
            self.found[int(success["Id"])] = Delivered()
        for failure in answer.get("Failed", ()):
            self.found[int(failure["Id"])] = _outcome(failure)


def _outcome(failure: dict[str, Any]) -> Outcome:
    code = failure["Code"]
    text = f"refused by SQS: {failure.get('Message') or 'no reason given'} ({code})"
    is_final = failure["SenderFault"] and not any(part in code for part in _PASSING)
    return Rejected(text) if is_final else Retry(text)
