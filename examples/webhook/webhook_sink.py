"""A sink that posts each message to a partner's endpoint, signed as Standard Webhooks says.

The body is the payload. ``webhook-id`` is the dedupe id, which stays the same in every try.
"""

import asyncio
import base64
import hmac
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from email.utils import mktime_tz, parsedate_tz

from aiohttp import ClientError, ClientSession, TCPConnector
from yarl import URL

from dsql_outbox import Database, Message, Publisher, SinkUnavailable
from dsql_outbox.publisher import (
    Answer,
    Deferred,
    Delivered,
    Destination,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)
from dsql_outbox.publisher.sinks import binary_headers, broken_header

REJECTED = {400, 413, 415, 422}
DEFERRED = {408, 425, 429, 502, 503, 504}
"""Not now: each may be about one request, so other messages are posted meanwhile."""
SERVER_ERRORS = range(500, 600)
"""The others of these may be a fault that one message makes in the endpoint."""
LONGEST_PAUSE = 3600.0  # seconds, whatever Retry-After says


class WebhookSink:
    """Posts to one URL; a message is delivered when the endpoint answered 2xx."""

    system = "webhook"

    def __init__(self, session: ClientSession, url: str, secret: str, timeout: float) -> None:
        self._session = session
        self._url = URL(url)
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._timeout = timeout
        self._not_before = 0.0
        self.destination = Destination(host=self._url.host, port=self._url.port)

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Post messages, within the timeout; without messages, ask for the endpoint."""
        pause = self._not_before - time.monotonic()
        if pause > 0:
            raise SinkUnavailable(f"{self._url.host} asked to come back in {pause:.0f} s")
        if not messages:
            await self._ask()
            return
        waiting = set(range(len(messages)))

        def tell(n: int, outcome: Outcome) -> None:
            waiting.remove(n)
            answer(n, outcome)

        try:
            async with asyncio.timeout(self._timeout), asyncio.TaskGroup() as tasks:
                for n, message in enumerate(messages):
                    tasks.create_task(self._post(n, message, tell))
        except TimeoutError:
            for n in sorted(waiting):
                tell(n, Deferred(f"the endpoint gave no answer in {self._timeout:g} s"))
        # A post whose connection was lost may have arrived, so it counts against no message.
        if len(waiting) == len(messages):
            raise SinkUnavailable(f"{self._url.host} cannot be reached")

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(self._timeout), self._session.head(self._url):
                return
        except (ClientError, TimeoutError) as error:
            raise SinkUnavailable(f"{self._url.host} answers no request") from error

    async def _post(self, n: int, message: Message, tell: Answer) -> None:
        if fault := broken_header(message.headers):  # aiohttp would raise, for all messages
            tell(n, Rejected(fault))
            return
        body, headers = message.payload, self._headers(message)
        post = self._session.post(self._url, data=body, headers=headers, allow_redirects=False)
        with suppress(ClientError):
            async with post as got:
                status, pause = got.status, got.headers.get("retry-after")
            if status in DEFERRED and pause is not None:
                self._not_before = time.monotonic() + _seconds(pause)
            tell(n, _outcome(status))

    def _headers(self, message: Message) -> dict[str, str]:
        name, now = message.dedupe_id, str(int(time.time()))
        signed = b".".join((name.encode(), now.encode(), message.payload))
        signature = base64.b64encode(hmac.digest(self._key, signed, "sha256")).decode()
        own = {"webhook-id": name, "webhook-timestamp": now, "webhook-signature": f"v1,{signature}"}
        own |= {"content-type": message.content_type, "topic": message.topic}
        attributes = binary_headers(message, "ce-")
        attributes.pop("ce-datacontenttype", None)  # HTTP has a header of its own for it
        return attributes | own


def _outcome(status: int) -> Outcome:
    if status in range(200, 300):
        return Delivered()
    refused = f"the endpoint answered {status}"
    if status in REJECTED:
        return Rejected(refused)
    if status in DEFERRED:
        return Deferred(refused)
    # What is left, as 401 and 404, is about the endpoint and so about every message.
    return Retry(refused) if status in SERVER_ERRORS else Unavailable(refused)


def _seconds(retry_after: str) -> float:
    if retry_after.isdecimal():
        return min(float(retry_after), LONGEST_PAUSE)
    date = parsedate_tz(retry_after)
    return min(mktime_tz(date) - time.time(), LONGEST_PAUSE) if date else 0.0


@asynccontextmanager
async def open_webhook(url: str, secret: str, timeout: float = 5.0) -> AsyncGenerator[WebhookSink]:
    """Open the sink for one endpoint. A secret is ``whsec_`` and the key in base64."""
    async with ClientSession(connector=TCPConnector(limit=20)) as session:
        yield WebhookSink(session, url, secret, timeout)


if __name__ == "__main__":
    url, secret = os.environ["WEBHOOK_URL"], os.environ["WEBHOOK_SECRET"]
    database = Database(os.environ["DATABASE_URL"])
    asyncio.run(Publisher(database, lambda: open_webhook(url, secret)).run())
