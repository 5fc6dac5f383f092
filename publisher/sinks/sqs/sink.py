"""The sink for SQS: it sends messages in requests and reads the outcome of each."""

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
"""The most requests at the same time. Each needs a thread, because the AWS SDK blocks."""

_PASSING: Final = ("Throttl", "Kms", "KMS", "AccessDenied")
"""Parts of error codes of failures that pass with time or that an operator can repair.

SQS may report them with ``SenderFault``, but the message is not at fault.
"""


class SqsSink:
    """Publishes to one queue; a message is delivered when SQS acknowledged its entry.

    It is not `ordered`, because the entries of a request succeed or fail one by one.
    """

    ordered = False
    system = "aws_sqs"

    def __init__(self, settings: SqsSettings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(_REQUESTS)
        self._client = SqsClient(settings, _REQUESTS)

    async def connect(self) -> None:
        """Open the client; raises what `SqsClient.open` raises."""
        await to_thread.run_sync(self._client.open)

    async def close(self) -> None:
        """Close the connections."""
        await to_thread.run_sync(self._client.close)

    async def publish(self, messages: Sequence[Message], /) -> list[Outcome]:
        """Publish messages, within twice the timeout.

        Raises `SinkUnavailable` when a request failed and no message was delivered. If
        other messages were delivered, those of the failed request are `NotAttempted`;
        they may be stored.
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
        for entry in entries:  # one entry breaks a rule, and SQS does not say which
            await self._request(batch, [entry])

    async def _send(self, batch: "_SqsBatch", entries: list[dict[str, Any]]) -> Rejected | None:
        """Send a request and note its answer; returns the reason if SQS refused all of it."""
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
    """The outcomes of the messages of one call; None while nothing is known about a message."""

    def __init__(self, size: int, deadline: float) -> None:
        self.found: list[Outcome | None] = [None] * size
        self.deadline = deadline
        self.failure: SinkUnavailable | None = None

    def take(self, answer: dict[str, Any]) -> None:
        """Note the outcome of each entry in the answer to a request."""
        for success in answer.get("Successful", ()):
            self.found[int(success["Id"])] = Delivered()
        for failure in answer.get("Failed", ()):
            self.found[int(failure["Id"])] = _outcome(failure)


def _outcome(failure: dict[str, Any]) -> Outcome:
    code = failure["Code"]
    text = f"refused by SQS: {failure.get('Message') or 'no reason given'} ({code})"
    is_final = failure["SenderFault"] and not any(part in code for part in _PASSING)
    return Rejected(text) if is_final else Retry(text)
