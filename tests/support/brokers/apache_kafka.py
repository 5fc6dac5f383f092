"""Apache Kafka with one node or several, each of which may be killed, stopped and restarted."""

import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.outbox import OutboxError
from dsql_outbox.servers.server_process import ServerProcess, free_port

from .java_servers import java

_MAIN: Final = "kafka.Kafka"
_CLUSTER: Final = "4L6g3nShT-eMCtK--X86sw"
_WAIT: Final = 10.0  # seconds


class ApacheKafka:
    """A cluster of nodes numbered from 0, each both broker and controller.

    Each node has a proxy on the way of clients that come by `proxied`. `settings` are more
    lines of ``server.properties``.
    """

    def __init__(
        self, folder: Path, nodes: int, *, makes_topics: bool, settings: Sequence[str]
    ) -> None:
        self._folder = folder
        self._makes_topics = makes_topics
        self._more = settings
        self._ports = [(free_port(), free_port(), free_port()) for _ in range(nodes)]
        self._processes: dict[int, ServerProcess] = {}
        self.proxies = [TcpProxy("127.0.0.1", far) for _, _, far in self._ports]
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port, _, _ in self._ports)
        self.proxied = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)

    @property
    def nodes(self) -> int:
        """How many nodes it has."""
        return len(self._ports)

    def start(self, *chosen: int) -> None:
        """Start the chosen nodes, or all that do not run, and wait until they are in the cluster."""
        started = chosen or [n for n in range(self.nodes) if n not in self._processes]
        for node in started:
            self._processes[node] = self._launch(node)
        for node in started:
            process = self._processes[node]
            with suppress(OutboxError):  # on a busy machine it takes more than the time of one wait
                process.wait_until_ready(self._all_are_in)
            process.wait_until_ready(self._all_are_in)

    def kill(self, node: int) -> None:
        """Kill a node with SIGKILL."""
        self._processes.pop(node).kill()

    def stop(self, node: int) -> None:
        """Stop a node in order, so that it hands over what it leads."""
        self._processes.pop(node).stop()

    @contextmanager
    def frozen(self, node: int) -> Generator[None]:
        """Stop a node with SIGSTOP, and let it go on at the end."""
        pid = self._processes[node].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill all nodes."""
        for node in list(self._processes):
            self.kill(node)

    def make_topic(
        self, name: str, partitions: int, on: Sequence[int] = (), /, **settings: str
    ) -> None:
        """Make a topic that every node has a replica of, or only those of `on`: the first leads."""
        places: Any = {"replication_factor": self.nodes}
        if on:
            places = {"replica_assignment": [[*on]] * partitions}
        new = NewTopic(name, partitions, config=settings, **places)
        admin = self._admin()  # kept until the answer came: it ends what it asked for
        admin.create_topics([new])[name].result(_WAIT)

    def leader(self, topic: str) -> int:
        """The node that leads the first partition of the topic; -1 if none does."""
        return int(self._admin().list_topics(topic, _WAIT).topics[topic].partitions[0].leader)

    def replicas_in_sync(self, topic: str) -> int:
        """How many replicas of the first partition are in sync."""
        return len(self._admin().list_topics(topic, _WAIT).topics[topic].partitions[0].isrs)

    def _all_are_in(self) -> bool:
        with suppress(KafkaException):
            return self._processes.keys() <= self._admin().list_topics(timeout=1).brokers.keys()
        return False

    def _admin(self) -> Any:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _launch(self, node: int) -> ServerProcess:
        folder = self._folder / f"node-{node}"
        settings = folder / "server.properties"
        if not folder.exists():
            folder.mkdir()
            settings.write_text("\n".join(self._settings(node, folder)))
            tool = ["format", "-t", _CLUSTER, "-c", str(settings)]
            subprocess.run(java("kafka", "kafka.tools.StorageTool", *tool), check=True,
                           capture_output=True)  # fmt: skip
        # What Kafka prints goes to standard output, and only the log is read.
        command = ["sh", "-c", 'exec "$@" >&2', "sh", *java("kafka", _MAIN, str(settings))]
        return ServerProcess(f"Kafka node {node}", command, folder / "log")

    def _settings(self, node: int, folder: Path) -> list[str]:
        port, controller, far = self._ports[node]
        voters = ",".join(f"{n}@127.0.0.1:{at}" for n, (_, at, _) in enumerate(self._ports))
        internal, external = f"PLAINTEXT://127.0.0.1:{port}", "FAR://127.0.0.1:"
        copies = self.nodes
        return [
            "process.roles=broker,controller",
            f"node.id={node}",
            f"controller.quorum.voters={voters}",
            "controller.listener.names=CONTROLLER",
            f"listeners={internal},{external}{far},CONTROLLER://127.0.0.1:{controller}",
            f"advertised.listeners={internal},{external}{self.proxies[node].port}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT,CONTROLLER:PLAINTEXT",
            f"log.dirs={folder / 'data'}",
            f"auto.create.topics.enable={str(self._makes_topics).lower()}",
            f"default.replication.factor={copies}",
            f"offsets.topic.replication.factor={copies}",
            f"min.insync.replicas={min(2, copies)}",
            "offsets.topic.num.partitions=1",
            "group.initial.rebalance.delay.ms=0",
            # A node that was killed or stopped is missed within seconds.
            "broker.session.timeout.ms=6000",
            "replica.lag.time.max.ms=4000",
            *self._more,
        ]


@contextmanager
def apache_kafka(
    folder: Path, nodes: int, *, makes_topics: bool = False, settings: Sequence[str] = ()
) -> Generator[ApacheKafka]:
    """A cluster for a while. Raises `MissingJava`."""
    cluster = ApacheKafka(folder, nodes, makes_topics=makes_topics, settings=settings)
    with ExitStack() as stack:
        for proxy in cluster.proxies:
            stack.enter_context(proxy)
        stack.callback(cluster.close)
        cluster.start()
        yield cluster
