"""Runs ministack's proxy for Aurora DSQL: ``python ministack_proxy.py PORT BACKEND_PORT``.

In a process of its own, with the Python of .venv/conformance. `pgproxy.start_proxy` would listen
on every address of this machine; what it calls for each client does not. A server that ends a
session ends it for the client, too, which ministack leaves out. What is known of the cluster's
own texts and codes goes before ministack's.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

from ministack.core import pgproxy

sys.path.append(str(Path(__file__).parents[3]))  # behind all: it has a folder "docs"

from tests.support.dsql.cluster_rules import MIXED, TWO_DDL
from tests.support.dsql.refusals import is_setting, refusal, refusal_of_mode

relay = pgproxy._backend_relay
validate = pgproxy.validate

_OF_TRANSACTION: Final = "25006"
"""What a transaction may not do. The rules behind ministack know it better, but for these two."""

_MIXES: Final = {
    "only one DDL statement can be run in a transaction": TWO_DDL,
    "DDL and DML statements cannot be mixed in a transaction": MIXED,
}


async def relay_to_the_end(conn: Any, server: asyncio.StreamReader, client: Any) -> None:
    try:
        await relay(conn, server, client)
    finally:
        client.close()


def validate_as_recorded(sql: str, transaction: Any = None) -> Any:
    if is_setting(sql):
        return None  # refused behind: ministack would answer before what precedes it in a pipeline
    if told := refusal(sql) or refusal_of_mode(sql):
        return pgproxy.DsqlError(*told)
    found = validate(sql, transaction)
    if isinstance(found, pgproxy.DsqlError) and found.sqlstate == _OF_TRANSACTION:
        told = _MIXES.get(found.message)
        return pgproxy.DsqlError(*told) if told else validate(sql)
    return found


pgproxy._backend_relay = relay_to_the_end
pgproxy.validate = validate_as_recorded


async def main(port: int, backend: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pgproxy._handle_client("conformance", "127.0.0.1", backend, reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


asyncio.run(main(*map(int, sys.argv[1:])))
