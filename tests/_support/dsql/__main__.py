"""Runs the endpoint with outbox tables until Ctrl-C: ``make endpoint``."""

import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests._support.dsql.server import postgres_server

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply

with TemporaryDirectory(prefix="outbox-") as folder:
    Path(folder).chmod(0o1777)  # root's PostgreSQL runs as another user
    with postgres_server(Path(folder)) as server:
        apply(Database(server.url))
        sys.stdout.write(f"{server.url}\nsessions of the library meet DSQL's rules; Ctrl-C ends\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
