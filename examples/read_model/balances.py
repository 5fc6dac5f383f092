"""A table of balances that follows the events: docs/targets.md.

    python examples/read_model/balances.py create | run MODEL
    python examples/read_model/balances.py pay FROM TO AMOUNT

The database is that of DSQL_OUTBOX_DATABASE. Each payment is an event of the account that
pays. `apply` adds it to both balances in the transaction that deletes its message from the
outbox, so it counts once, whatever is killed. The inbox remembers its id, so that a replay
does not count again. MODEL is the name of the target and of the table: each version of the
model has its own.
"""

import asyncio
import json
import os
import sys
from decimal import Decimal

from psycopg import AsyncConnection, sql

from dsql_outbox import Database, Entity, Event, Message, Publisher, PublisherSettings, Writer
from dsql_outbox.inbox import AsyncInbox
from dsql_outbox.publisher import Apply

DATABASE = Database(os.environ["DSQL_OUTBOX_DATABASE"])
QUICK = PublisherSettings(lease=2.0)


def applying(model: str) -> Apply:
    """The function that adds payments to the table of a model."""
    inbox = AsyncInbox(DATABASE, model)
    add = sql.SQL(
        "INSERT INTO public.{} AS b (account, balance) VALUES (%s, %s)"
        " ON CONFLICT (account) DO UPDATE SET balance = b.balance + excluded.balance"
    ).format(sql.Identifier(model))

    async def apply(connection: AsyncConnection, message: Message) -> None:
        if not await inbox.remember(connection, message.event_id):
            return
        payer, payee = json.loads(message.payload)["entities"]
        amount = Decimal(payer["amount"])
        for entity, moved in ((payer, -amount), (payee, amount)):
            await connection.execute(add, (entity["entityHeader"]["entityId"], moved))

    return apply


def payment(payer: str, payee: str, amount: str) -> Event:
    """The event of a payment."""
    accounts = [Entity("Account", each, {"amount": amount}) for each in (payer, payee)]
    return Event.new("MoneyPaid", accounts)


def create(model: str) -> None:
    """Make the table of a model."""
    table = "CREATE TABLE public.{} (account varchar(128) PRIMARY KEY, balance numeric NOT NULL)"
    with DATABASE.connect() as connection:
        connection.execute(sql.SQL(table).format(sql.Identifier(model)))


def pay(payer: str, payee: str, amount: str) -> None:
    """Write one payment."""
    with Writer(DATABASE) as writer:
        print(writer.write(payment(payer, payee, amount)).event_id)


def run(model: str) -> None:
    """Apply payments until the process ends."""
    publisher = Publisher(DATABASE, settings=QUICK, apply=applying(model), target=model)
    asyncio.run(publisher.run())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["create", model]:
            create(model)
        case ["run", model]:
            run(model)
        case ["pay", payer, payee, amount]:
            pay(payer, payee, amount)
        case _:
            sys.exit(__doc__)
