"""A read model: the orders of each day, without a broker. It is the target `revenue`.

    dsql-outbox publish --target revenue --apply examples.fastapi.revenue:apply

The function runs in the transaction that deletes the message, so each order counts once.
"""

import json
from decimal import Decimal

from psycopg import AsyncConnection

from dsql_outbox import Message

ADD = """INSERT INTO public.revenue AS r (day, orders, total)
    VALUES (%s::timestamptz::date, 1, %s)
    ON CONFLICT (day) DO UPDATE SET orders = r.orders + 1, total = r.total + excluded.total"""


async def apply(connection: AsyncConnection, message: Message) -> None:
    """Count one order."""
    _, order = json.loads(message.payload)["entities"]
    await connection.execute(ADD, (message.headers["time"], Decimal(str(order["amount"]))))
