"""What the shop's publishers call: a read model, and a map."""

from typing import Any

from psycopg import AsyncConnection

from dsql_outbox.outbox import Message

TOO_FAR = 77_777
"""A step that the shop's format has no room for."""


async def count_steps(connection: AsyncConnection[Any], message: Message) -> None:
    """Count the steps of each order."""
    await connection.execute(
        "INSERT INTO public.order_steps AS s (id, steps) VALUES (%s, 1)"
        " ON CONFLICT (id) DO UPDATE SET steps = s.steps + 1",
        (message.key,),
    )


def to_wire(message: Message) -> bytes:
    """The shop's own format."""
    if str(TOO_FAR).encode() in message.payload:
        raise ValueError("an order has fewer than 10,000 steps")
    return message.payload
