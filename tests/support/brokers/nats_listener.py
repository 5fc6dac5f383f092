"""A subscription of nats-py that the server knows."""

from collections.abc import Awaitable, Callable
from typing import Any


async def subscribed(
    client: Any, subject: str, hear: Callable[[Any], Awaitable[None]] | None = None
) -> Any:
    """Subscribe, and return the subscription when the server delivers to it.

    The PING of `flush` overtakes what the client has not sent yet, also a SUB. A message of its
    own does not.
    """
    subscription = await client.subscribe(subject, cb=hear)
    inbox = client.new_inbox()
    echo = await client.subscribe(inbox)
    await client.publish(inbox)
    await echo.next_msg(timeout=10)
    await echo.unsubscribe()
    return subscription
