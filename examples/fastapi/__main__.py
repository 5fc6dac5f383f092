"""Everything in one command: PostgreSQL, NATS, the API with its publisher, and the consumer.

Beside them run a publisher to a second broker, the lake, and one that keeps a read model.

A process that ends is started again, as systemd or Kubernetes would do.
"""

import argparse
import asyncio
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import nats
from nats.js.api import StreamConfig

from dsql_outbox import Database
from dsql_outbox.operations import Targets
from dsql_outbox.schema import apply
from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.servers.postgres_server import EmbeddedPostgres

TABLES = Path(__file__).with_name("tables.sql")
STREAM = StreamConfig(name="ORDERS", subjects=["events.>"])


async def keep_running(name: str, *command: str) -> None:
    """Run a program of this Python until cancelled, and start it again when it ends."""
    while True:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", *command)
        print(f"{name} runs, process {process.pid}", flush=True)
        try:
            print(f"{name} ended with {await process.wait()}", flush=True)
        finally:
            if process.returncode is None:
                process.terminate()
                with anyio.CancelScope(shield=True):
                    await process.wait()


async def run(port: int) -> None:
    client = await nats.connect(os.environ["SINK_URL"].partition("?")[0])
    await client.jetstream().add_stream(STREAM)
    await client.close()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_running, "consumer", "examples.fastapi.consumer")
        serve = ("uvicorn", "examples.fastapi.app:app", "--port", str(port), "--no-access-log")
        tasks.start_soon(keep_running, "api", *serve)
        publish = ("dsql_outbox", "publish", "--database", os.environ["DATABASE_URL"])
        lake = (*publish, "--target", "lake", "--sink", os.environ["LAKE_URL"])
        tasks.start_soon(keep_running, "lake", *lake)
        model = (*publish, "--target", "revenue", "--apply", "examples.fastapi.revenue:apply")
        tasks.start_soon(keep_running, "revenue", *model)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                tasks.cancel_scope.cancel()


async def add_targets(database: Database) -> None:
    """Let the lake and the read model get messages of their own; nothing changes if they do."""
    async with Targets(database) as targets:
        await targets.add("lake")
        await targets.add("revenue", kind="model")


def start_servers(stack: ExitStack) -> None:
    """Start PostgreSQL and NATS, unless the environment names servers."""
    if "DATABASE_URL" not in os.environ:
        os.environ["DATABASE_URL"] = stack.enter_context(EmbeddedPostgres()).url
    if "SINK_URL" not in os.environ:
        os.environ["SINK_URL"] = f"{stack.enter_context(NatsServer()).url}?stream=ORDERS"
    if "LAKE_URL" not in os.environ:
        os.environ["LAKE_URL"] = f"jsonl:{stack.enter_context(TemporaryDirectory())}/lake.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    with ExitStack() as stack:
        start_servers(stack)
        database = Database(os.environ["DATABASE_URL"])
        apply(database)
        with database.connect(role_path=True) as connection:
            connection.execute(TABLES.read_bytes())
        asyncio.run(add_targets(database))
        print(f"http://127.0.0.1:{port}/docs", flush=True)
        asyncio.run(run(port))


if __name__ == "__main__":
    main()
