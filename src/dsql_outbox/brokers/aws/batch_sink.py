"""A sink for a service of AWS: it sends messages in requests and passes on the answers to each."""

import asyncio
from collections.abc import Sequence

import anyio
from anyio import to_thread

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import (
    Answer,
    Delivered,
    Destination,
    Outcome,
    Rejected,
    Unavailable,
    at_host,
)

from .batch_client import (
    REQUESTS,
    Answers,
    BatchClient,
    Entry,
    RequestRefused,
    TargetUnavailable,
    cut,
)


class BatchSink:
    """Publishes to one target; a message is delivered when the service acknowledged its entry."""

    def __init__(self, client: BatchClient) -> None:
        self.system = client.system
        self.destination = Destination(client.name)
        self._client = client
        self._turns = asyncio.Semaphore(REQUESTS)

    async def connect(self) -> None:
        """Open the client. Raises the errors of `BatchClient.open`."""
        await to_thread.run_sync(self._client.open)
        place = at_host(self._client.endpoint)
        self.destination = Destination(self._client.name, place.host, place.port)

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
        deadline = asyncio.get_running_loop().time() + self._client.address.timeout
        call = _BatchCall(answer, deadline)
        entries: list[Entry] = []
        for index, message in enumerate(messages):
            entry = self._client.entry(index, message)
            if isinstance(entry, Rejected):
                answer(index, entry)
            else:
                entries.append(entry)
        async with anyio.create_task_group() as tasks:
            for request in cut(entries, self._client.max_bytes):
                tasks.start_soon(self._request, call, request)
        if call.failure is not None and not call.has_delivered:
            raise call.failure

    async def _request(self, call: "_BatchCall", entries: list[Entry]) -> None:
        async with self._turns:
            refused = await self._send(call, entries)
        if refused is None:
            return
        if len(entries) == 1:
            call.settle(entries, refused)
            return
        for entry in entries:  # one entry breaks a rule, and the service does not say which
            await self._request(call, [entry])

    async def _send(self, call: "_BatchCall", entries: list[Entry]) -> Rejected | None:
        """Send a request and pass on its answers. Returns the reason if all of it was refused."""
        if call.failure is not None or asyncio.get_running_loop().time() >= call.deadline:
            return None
        try:
            call.take(await to_thread.run_sync(self._client.send, entries))
        except SinkUnavailable as error:
            call.failure = error
        except TargetUnavailable as error:
            call.settle(entries, Unavailable(f"refused by {self._client.service}: {error}"))
        except RequestRefused as error:
            return Rejected(f"refused by {self._client.service}: {error}")
        return None


class _BatchCall:
    """The state of one call."""

    def __init__(self, answer: Answer, deadline: float) -> None:
        self.deadline = deadline
        self.failure: SinkUnavailable | None = None
        self.has_delivered = False
        self._answer = answer

    def take(self, answers: Answers) -> None:
        """Pass on the service's answer for each entry."""
        for index, outcome in answers:
            self._answer(index, outcome)
            self.has_delivered |= isinstance(outcome, Delivered)

    def settle(self, entries: Sequence[Entry], outcome: Outcome) -> None:
        """Give all entries the same answer."""
        self.take((entry.index, outcome) for entry in entries)
