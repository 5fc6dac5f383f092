"""A broker that the contract suite may cut off, by a proxy on the way to it."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.testing.sink_contract import ReadableBroker


class ProxiedBroker(ReadableBroker):
    """A broker behind a proxy, if there is one."""

    proxy: TcpProxy | None = None

    def outage(self) -> AbstractContextManager[None] | None:
        """A block in which the sink cannot reach the broker; None without a proxy."""
        return _cut_off(self.proxy) if self.proxy else None


@contextmanager
def _cut_off(proxy: TcpProxy) -> Generator[None]:
    """Cut all connections through the proxy, and refuse new ones inside the block."""
    proxy.pause_listening()
    proxy.cut_all()
    yield
    proxy.resume_listening()
