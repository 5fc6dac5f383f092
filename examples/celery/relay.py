"""The publisher: it hands the tasks of committed events to Celery."""

import asyncio

from celery_sink import open_celery
from shop import app, database, to_task
from tracing import send_traces

from dsql_outbox import Publisher

if __name__ == "__main__":
    send_traces("shop-relay")
    asyncio.run(Publisher(database, lambda: open_celery(app), map=to_task).run())
