"""Orders by two producers that are killed after a commit: how many of their tasks are lost?

One sends the task after its commit, as ``on_commit(lambda: bill.delay(..))`` does. The other one
appends an event in its transaction. Both are killed right after the commit of every tenth order.
"""

import os
import signal
import subprocess
import sys
import time

import psycopg
from celery import uuid
from shop import bill, database, make_tables, place

from dsql_outbox import Writer

ORDERS, KILLED_AT = 50, 10
PATIENCE = 60.0  # seconds


def produce(way: str, first: int) -> None:
    """Place the orders from this number on, until a kill."""
    with Writer(database) as writer, psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        for number in range(first, ORDERS):
            order = f"{way}-{number}"
            if way == "outbox":
                place(writer, order, f"C-{number % 3}")
            else:
                insert = "INSERT INTO orders (id, customer) VALUES (%s, %s)"
                connection.execute(insert, (order, f"C-{number % 3}"))
                connection.commit()
            if number % KILLED_AT == KILLED_AT - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if way == "after-commit":
                bill.apply_async((order, f"C-{number % 3}"), task_id=uuid())


def orders_without_bill(way: str) -> int:
    """Count the orders that are stored and have no bill."""
    query = (
        "SELECT count(*) FROM orders WHERE id LIKE %s AND NOT EXISTS"
        " (SELECT FROM bills WHERE order_id = id)"
    )
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        ((lost,),) = connection.execute(query, (f"{way}-%",)).fetchall()
        return int(lost)


def main() -> None:
    """Let both produce, wait for the bills, and print a line for each."""
    make_tables()
    for way in ("after-commit", "outbox"):
        for first in range(0, ORDERS, KILLED_AT):
            subprocess.run([sys.executable, __file__, way, str(first)], check=False)
    deadline = time.monotonic() + PATIENCE
    # The other producer's tasks were sent before.
    while orders_without_bill("outbox") and time.monotonic() < deadline:
        time.sleep(0.1)
    for way in ("after-commit", "outbox"):
        lost = orders_without_bill(way)
        print(f"{way:<12} {ORDERS} orders, {ORDERS // KILLED_AT} kills, {lost} tasks lost")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        produce(sys.argv[1], int(sys.argv[2]))
    else:
        main()
