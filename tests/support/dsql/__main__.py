"""Runs the endpoint with outbox tables until Ctrl-C or SIGTERM: ``make endpoint``."""

import signal
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply

from .server import ON_DSQL, postgres_server, refuse_unknown


def serve() -> None:
    """Run it, and say where."""
    with TemporaryDirectory(prefix="outbox-") as folder:
        Path(folder).chmod(0o1777)  # root's PostgreSQL runs as another user
        with postgres_server(Path(folder)) as server:
            apply(Database(server.url))
            print(f"{server.url}\nsessions of the library meet DSQL's rules; Ctrl-C ends")  # noqa: T201
            sys.stdout.flush()
            signal.pause()


if not ON_DSQL:
    sys.exit("set DSQL_OUTBOX_TEST_SERVER, or run make endpoint")
try:
    refuse_unknown()
except pytest.UsageError as error:
    sys.exit(str(error))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.default_int_handler)
with suppress(KeyboardInterrupt):
    serve()
