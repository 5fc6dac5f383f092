"""NATS servers with settings of their own, alone or as a cluster."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from dsql_outbox.servers.nats_server import nats_program
from dsql_outbox.servers.server_process import ServerProcess, free_port


@contextmanager
def custom_server(folder: Path, *options: str, settings: str = "", port: int = 0) -> Generator[str]:
    """A server with options and settings of its own; gives HOST:PORT. The end kills it."""
    port = free_port(port)
    (folder / "nats.conf").write_text(settings)
    place = [
        "-c",
        str(folder / "nats.conf"),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "-sd",
        str(folder),
    ]
    process = ServerProcess("NATS", [nats_program(), *place, *options], folder / "log")
    try:
        process.wait_until_ready(lambda: "Server is ready" in (folder / "log").read_text())
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()


@contextmanager
def refusing_server(folder: Path) -> Generator[str]:
    """A server with JetStream whose user may not publish to ``Secret.>``; gives its URL."""
    settings = """
      authorization { users: [
        { user: joe, password: pw, permissions: { publish: { deny: "Secret.>" } } } ] }
    """
    with custom_server(folder, "-js", settings=settings) as host:
        yield f"nats://joe:pw@{host}"


class NatsCluster:
    """Three servers with JetStream, ``n0`` to ``n2``, any of which may be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = ("n0", "n1", "n2")
        self._ports = {name: free_port() for name in self.names}
        self._routes = {name: free_port() for name in self.names}
        self._health = {name: free_port() for name in self.names}
        self._processes: dict[str, ServerProcess] = {}

    def url(self, name: str) -> str:
        """The URL of one server."""
        return f"nats://127.0.0.1:{self._ports[name]}"

    def start(self) -> None:
        """Start the servers that do not run, and wait until JetStream works."""
        for name in self.names:
            if name not in self._processes:
                self._processes[name] = self._launch(name)
        for name in self.names:
            self._processes[name].wait_until_ready(lambda name=name: self._is_healthy(name))

    def kill(self, name: str) -> None:
        """Kill a server."""
        if process := self._processes.pop(name, None):
            process.kill()

    def kill_all(self) -> None:
        """Kill all servers."""
        for name in self.names:
            self.kill(name)

    def _launch(self, name: str) -> ServerProcess:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes.values())
        settings = folder / "nats.conf"
        settings.write_text(
            f"server_name: {name}\nlisten: 127.0.0.1:{self._ports[name]}\n"
            f"http: 127.0.0.1:{self._health[name]}\njetstream {{ store_dir: {folder} }}\n"
            f"cluster {{ name: tests, listen: 127.0.0.1:{self._routes[name]}, "
            f"routes: [{routes}], no_advertise: true }}\n"
        )
        return ServerProcess("NATS", [nats_program(), "-c", str(settings)], folder / "log")

    def _is_healthy(self, name: str) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._health[name]}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def nats_cluster(folder: Path) -> Generator[NatsCluster]:
    """A cluster for a while."""
    cluster = NatsCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill_all()
