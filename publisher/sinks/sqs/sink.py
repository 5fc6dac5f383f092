"""The sink for SQS: it sends messages in requests and passes on the answers to each."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import anyio
from anyio import to_thread

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.sinks.port import (
    Answer,
    Delivered,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)

from .client import QueueUnavailable, RequestRefused, SqsClient, blames_queue
from .entry import broken_rule, cut, make_entry
from .url import SqsSettings

_REQUESTS: Final = 8
"""The most requests at the same time. Each needs a thread, because the AWS SDK blocks."""

Entries = list[dict[str, Any]]


class SqsSink:
    """Publishes to one queue; a message is delivered when SQS acknowledged its entry."""

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

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish messages, within twice the timeout; answers as each request is answered.

        Raises `SinkUnavailable` when a request failed and no message of the call was
        delivered. If some were, those of the failed request get no answer, and may be
        stored.
        """
        if not messages:
            await to_thread.run_sync(self._client.ask)
            return
        call = _SqsCall(answer, asyncio.get_running_loop().time() + self._settings.timeout)
        entries: Entries = []
        for index, message in enumerate(messages):
            entry = make_entry(str(index), message, is_fifo=self._settings.is_fifo)
            if rule := broken_rule(entry):
                answer(index, Rejected(rule))
            else:
                entries.append(entry)
        async with anyio.create_task_group() as tasks:
            for request in cut(entries):
                tasks.start_soon(self._request, call, request)
        if call.failure is not None and not call.has_delivered:
            raise call.failure

    async def _request(self, call: "_SqsCall", entries: Entries) -> None:
        async with self._turns:
            refused = await self._send(call, entries)
        if refused is None:
            return
        if len(entries) == 1:
            call.settle(entries, refused)
            return
        for entry in entries:  # one entry breaks a rule, and SQS does not say which
            await self._request(call, [entry])

    async def _send(self, call: "_SqsCall", entries: Entries) -> Rejected | None:
        """Send a request and pass on its answer; returns the reason if SQS refused all of it."""
        if call.failure is not None or asyncio.get_running_loop().time() >= call.deadline:
            return None
        try:
            call.take(await to_thread.run_sync(self._client.send, entries))
        except SinkUnavailable as error:
            call.failure = error
        except QueueUnavailable as error:
            call.settle(entries, Unavailable(f"refused by SQS: {error}"))
        except RequestRefused as error:
            return Rejected(f"refused by SQS: {error}")
        return None


class _SqsCall:
    """What is known of one call."""

    def __init__(self, answer: Answer, deadline: float) -> None:
        self.deadline = deadline
        self.failure: SinkUnavailable | None = None
        self.has_delivered = False
        self._answer = answer

    def take(self, response: dict[str, Any]) -> None:
        """Answer for each entry in the response to a request."""
        self.settle(response.get("Successful", ()), Delivered())
        for failed in response.get("Failed", ()):
            self.settle([failed], _outcome(failed))

    def settle(self, entries: Sequence[dict[str, Any]], outcome: Outcome) -> None:
        """Answer for entries, or for what SQS says of them."""
        for entry in entries:
            self._answer(int(entry["Id"]), outcome)
            self.has_delivered |= isinstance(outcome, Delivered)


def _outcome(failed: dict[str, Any]) -> Outcome:
    code = failed["Code"]
    text = f"refused by SQS: {failed.get('Message') or 'no reason given'} ({code})"
    if blames_queue(code):
        return Unavailable(text)
    return Rejected(text) if failed["SenderFault"] else Retry(text)
