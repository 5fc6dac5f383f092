"""ElasticMQ: an SQS that is not ours, in memory."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.waiting import listens

from dsql_outbox.servers.server_process import ServerProcess

from .java_servers import java
from .sqs_server import SqsServer

_MAIN: Final = "org.elasticmq.server.Main"


class ElasticMq(SqsServer):
    """ElasticMQ on 127.0.0.1; what it holds is gone when it ends. Raises `MissingJava`."""

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:  # noqa: ARG002 - in memory
        settings = {
            "rest-sqs.bind-port": self.port,
            "rest-sqs.bind-hostname": "127.0.0.1",
            "node-address.port": self.port,
            "node-address.host": "127.0.0.1",
            "rest-stats.enabled": "false",
        }
        options = tuple(f"-D{name}={value}" for name, value in settings.items())
        command = java("elasticmq", _MAIN, options=options)
        process = self._process = ServerProcess(
            self._name, ["sh", "-c", 'exec "$@" >&2', "sh", *command], scratch / "sqs.log"
        )
        process.wait_until_ready(partial(listens, self.port))
        return process

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Stop the server with SIGSTOP, and let it go on at the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)
