"""A shop: its Celery app, a task, and orders whose task is enqueued in their transaction."""

import json
import os
import time
from typing import Any

import psycopg
import tracing  # noqa: F401 - traces the worker
from celery import Celery
from celery.utils.log import get_task_logger

from dsql_outbox import Database, Entity, Event, Message, Receipt, Transaction, Writer
from dsql_outbox.inbox import Inbox
from dsql_outbox.schema import apply

app = Celery("shop", broker=os.environ.get("BROKER_URL", "amqp://localhost"))
app.conf.task_acks_late = True  # a task whose worker dies is run again
app.conf.task_reject_on_worker_lost = True
app.conf.worker_prefetch_multiplier = 1
app.conf.task_ignore_result = True

database = Database(os.environ["DATABASE_URL"])
logger = get_task_logger("shop")
WAIT = 5.0  # seconds until a task whose database refuses is tried again


def make_tables() -> None:
    """Make the tables of the shop and those of the outbox."""
    apply(database)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, customer text)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS bills (order_id text, customer text, task_id text,"
            " number bigint GENERATED ALWAYS AS IDENTITY)"
        )


def place(writer: Writer, order: str, customer: str) -> Receipt:
    """Store an order and its event, in one transaction that is retried after a conflict."""

    def run(transaction: Transaction) -> Receipt:
        transaction.connection.execute(
            "INSERT INTO orders (id, customer) VALUES (%s, %s)", (order, customer)
        )
        event = Event.new("OrderPlaced", [Entity("Customer", customer, {"order": order})])
        return transaction.append(event)

    return writer.transact(run)


def to_task(message: Message) -> object:
    """Return the task of an event: the map of the publisher."""
    if message.headers["type"] != "OrderPlaced":
        return None
    (customer, *_) = json.loads(message.payload)["entities"]
    return {"task": "shop.bill", "args": [customer["order"], customer["id"]]}


@app.task(name="shop.bill", bind=True)
def bill(self: Any, order: str, customer: str) -> None:
    """Store a bill, once for each task id: a task may run twice.

    An error is tried again here: Celery acknowledges a task that raises, so its bill would be
    lost, and its own retry would put the task behind later ones.
    """

    def run(connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO bills (order_id, customer, task_id) VALUES (%s, %s, %s)",
            (order, customer, self.request.id),
        )

    with Inbox(database, "billing") as inbox:
        while True:
            try:
                inbox.once(self.request.id, run)
            except Exception:
                logger.exception("task %s waits %s s for another try", self.request.id, WAIT)
                time.sleep(WAIT)
            else:
                return
