"""The publisher: it hands the tasks of committed events to Celery, until Ctrl-C or SIGTERM."""

import asyncio
import signal

from celery_sink import open_celery
from shop import app, database, to_task
from tracing import send_traces

from dsql_outbox import Publisher


async def main() -> None:
    """Relay until a signal, and then end the work in progress."""
    publisher = Publisher(database, lambda: open_celery(app), map=to_task)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, publisher.stop)
    await publisher.run()


if __name__ == "__main__":
    send_traces("shop-relay")
    asyncio.run(main())
