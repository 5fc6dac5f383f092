"""A RabbitMQ of Debian's package, with a place, a cookie and an epmd of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Self

from tests.support.waiting import listens

from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess, free_port

PROGRAMS: Final = Path("/usr/lib/rabbitmq/bin")
"""The scripts themselves; those of /usr/sbin change to another user."""

_PLUGINS: Final = "[rabbitmq_consistent_hash_exchange]."
_LOOPBACK: Final = "-kernel inet_dist_use_interface {127,0,0,1}"


class MissingRabbitMq(Exception):
    """This machine has no RabbitMQ."""

    def __init__(self) -> None:
        super().__init__("RabbitMQ is missing: apt-get install rabbitmq-server")


class RabbitMqServer(EmbeddedServer):
    """RabbitMQ on 127.0.0.1 with the user guest; its data stays when it is killed and started.

    `settings` are more lines of ``rabbitmq.conf``. Raises `MissingRabbitMq`.
    """

    def __init__(self, *settings: str) -> None:
        if not (PROGRAMS / "rabbitmq-server").exists() or shutil.which("epmd") is None:
            raise MissingRabbitMq
        super().__init__("RabbitMQ", None, signal.SIGTERM)
        self.port = free_port()
        self._settings = settings
        self._names = free_port()
        self._node = free_port()
        self._epmd: ServerProcess | None = None

    @property
    def host(self) -> str:
        """HOST:PORT for clients."""
        return f"127.0.0.1:{self.port}"

    def ctl(self, *command: str) -> str:
        """Run rabbitmqctl, and return what it prints. Raises `CalledProcessError`."""
        ran = subprocess.run(
            [PROGRAMS / "rabbitmqctl", "--quiet", *command],
            env=self._environment(), check=True, capture_output=True, text=True,
        )  # fmt: skip
        return ran.stdout

    @contextmanager
    def app_stopped(self) -> Generator[None]:
        """Stop the broker inside of its virtual machine, and start it at the end."""
        self.ctl("stop_app")
        try:
            yield
        finally:
            self.ctl("start_app")

    @contextmanager
    def memory_alarm(self) -> Generator[None]:
        """Let the server block all connections that publish, as it does without memory."""
        self.ctl("set_vm_memory_high_watermark", "0.0000001")
        try:
            yield
        finally:
            self.ctl("set_vm_memory_high_watermark", "0.4")

    @contextmanager
    def disk_alarm(self) -> Generator[None]:
        """Let the server block all connections that publish, as it does on a full disk."""
        self.ctl("set_disk_free_limit", "mem_relative", "1000000")
        try:
            yield
        finally:
            self.ctl("set_disk_free_limit", "50MB")

    @contextmanager
    def silent_queue(self, name: str) -> Generator[None]:
        """Suspend the process of a queue, which then confirms nothing."""
        self._ask_queue(name, "suspend")
        try:
            yield
        finally:
            self._ask_queue(name, "resume")

    def take_majority(self, name: str) -> None:
        """Take the majority from a quorum queue, by a member that does not exist."""
        queue = f"'%2F_{name}'"
        text = self.ctl(
            "eval", f"ra:add_member({{{queue}, node()}}, {{{queue}, 'gone@localhost'}})."
        )
        assert text.startswith("{ok,"), text

    def _ask_queue(self, name: str, what: str) -> None:
        resource = f'rabbit_misc:r(<<"/">>, queue, <<"{name}">>)'
        found = f"{{ok, Queue}} = rabbit_amqqueue:lookup({resource})"
        self.ctl("eval", f"{found}, sys:{what}(amqqueue:get_pid(Queue)).")

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Stop the server with SIGSTOP, and let it go on at the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        super().close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd = None

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:
        if not folder.exists():
            folder.mkdir()
            lines = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", "log.console = true"]
            lines += ["log.file = false", "log.console.level = warning", *self._settings]
            (scratch / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
            (scratch / "plugins").write_text(_PLUGINS)
        if self._epmd is None:
            place = ["-port", str(self._names), "-address", "127.0.0.1"]
            self._epmd = ServerProcess("epmd", ["epmd", *place], scratch / "epmd.log")
            self._epmd.wait_until_ready(partial(listens, self._names))
        # What RabbitMQ prints goes to standard output, and only the log is read.
        command = ["sh", "-c", 'exec "$@" >&2', "sh", str(PROGRAMS / "rabbitmq-server")]
        process = self._spawn(command, scratch / "rabbitmq.log", env=self._environment())
        process.wait_until_ready(partial(listens, self.port))
        return process

    def _environment(self) -> dict[str, str]:
        scratch = self._scratch
        assert scratch is not None
        return os.environ | {
            "HOME": str(scratch),  # of the cookie
            "ERL_CRASH_DUMP": str(scratch / "crash.dump"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(scratch / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(self._node),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(scratch / "plugins"),
            "RABBITMQ_LOG_BASE": str(scratch),
            "RABBITMQ_MNESIA_BASE": str(scratch / "data"),
            "RABBITMQ_NODENAME": f"rabbit-{self.port}@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _LOOPBACK,
            "detached": "1",  # the script becomes the server, so that a signal reaches it
        }
