"""A table of balances that follows the events: docs/read-models.md.

    python examples/read_model/balances.py create | clear | run | pay FROM TO AMOUNT

The database is that of DSQL_OUTBOX_DATABASE. Each payment is an event of the account that
pays. `apply` adds it to both balances in the transaction that deletes its message from the
outbox, so it counts once, whatever is killed. The inbox remembers its id, so that a replay
does not count again.
"""

import asyncio
import json
import os
import sys
from decimal import Decimal

from dsql_outbox import Database, Entity, Event, Message, Publisher, PublisherSettings, Writer
from dsql_outbox.inbox import AsyncInbox
from dsql_outbox.outbox import AsyncConnection
from dsql_outbox.publisher import Targets

DATABASE = Database(os.environ["DSQL_OUTBOX_DATABASE"])
INBOX = AsyncInbox(DATABASE, "balances")
QUICK = PublisherSettings(lease=2.0)

ADD = """INSERT INTO public.balances AS b (account, balance) VALUES (%s, %s)
    ON CONFLICT (account) DO UPDATE SET balance = b.balance + excluded.balance"""


async def apply(connection: AsyncConnection, message: Message) -> None:
    """Move the money of one payment."""
    if not await INBOX.remember(connection, message.event_id):
        return
    payer, payee = json.loads(message.payload)["entities"]
    amount = Decimal(payer["amount"])
    for entity, moved in ((payer, -amount), (payee, amount)):
        await connection.execute(ADD, (entity["entityHeader"]["entityId"], moved))


def payment(payer: str, payee: str, amount: str) -> Event:
    """The event of a payment."""
    accounts = [Entity("Account", each, {"amount": amount}) for each in (payer, payee)]
    return Event.new("Money Paid", "MoneyPaid", accounts)


def create() -> None:
    """Make the table, and the target whose messages change it. It may run again."""
    with DATABASE.connect() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS public.balances"
            " (account varchar(128) PRIMARY KEY, balance numeric NOT NULL)"
        )
    asyncio.run(add_target())


async def add_target() -> None:
    """Let the balances get a message of each event from now on, with a progress of their own."""
    async with Targets(DATABASE) as targets:
        await targets.add("balances", kind="model")


def clear() -> None:
    """Empty the table before a rebuild, with what is remembered. Stop `run` before."""
    with DATABASE.connect() as connection, connection.transaction():
        connection.execute("DELETE FROM public.balances")
        connection.execute("DELETE FROM outbox.inbox WHERE consumer = 'balances'")


def pay(payer: str, payee: str, amount: str) -> None:
    """Write one payment."""
    with Writer(DATABASE) as writer:
        print(writer.write(payment(payer, payee, amount)).event_id)


def run() -> None:
    """Apply payments until the process ends."""
    asyncio.run(Publisher(DATABASE, settings=QUICK, apply=apply, target="balances").run())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["create"]:
            create()
        case ["clear"]:
            clear()
        case ["run"]:
            run()
        case ["pay", payer, payee, amount]:
            pay(payer, payee, amount)
        case _:
            sys.exit(__doc__)
