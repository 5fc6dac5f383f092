"""Runs ministack's proxy for Aurora DSQL: ``python ministack_proxy.py PORT BACKEND_PORT``.

In a process of its own, with the Python of .venv/conformance. `pgproxy.start_proxy` would listen
on every address of this machine; what it calls for each client does not. A server that ends a
session ends it for the client, too, which ministack leaves out.
"""

import asyncio
import sys
from typing import Any

from ministack.core import pgproxy

relay = pgproxy._backend_relay


async def relay_to_the_end(conn: Any, server: asyncio.StreamReader, client: Any) -> None:
    try:
        await relay(conn, server, client)
    finally:
        client.close()


pgproxy._backend_relay = relay_to_the_end


async def main(port: int, backend: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pgproxy._handle_client("conformance", "127.0.0.1", backend, reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


asyncio.run(main(*map(int, sys.argv[1:])))
