"""A TCP proxy that can cut, silence and refuse connections while a test runs."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from dsql_outbox.servers.server_process import free_port

_CHUNK: Final = 1 << 16  # bytes
_CALL: Final = 10.0  # seconds that a control call may take
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close sends RST

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""The reader and the writer of one connection."""


class Cut(Exception):
    """Raised while a client's bytes are handled, to close that client's connection."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


class Link:
    """One client's connection, and the connection to the server that belongs to it."""

    def __init__(self, proxy: "TcpProxy", client: Streams, server: Streams) -> None:
        self._proxy = proxy
        self._client_reader, self._client = client
        self._server_reader, self._server = server
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._counted = False

    async def run(self) -> None:
        """Carry bytes in both directions until the server closes its side."""
        self.note_connected()
        reading = asyncio.create_task(self._read_client())
        forwarding = asyncio.create_task(self._forward_client())
        try:
            while data := await _read(self._server_reader):
                self.to_client(self.from_server(data))
            self._client.close()
            await reading
        finally:
            self._client.transport.abort()
            self._server.transport.abort()
            reading.cancel()
            forwarding.cancel()
            await asyncio.gather(reading, forwarding, return_exceptions=True)
            await asyncio.gather(
                self._client.wait_closed(), self._server.wait_closed(), return_exceptions=True
            )
            self._count_closed()

    def note_connected(self) -> None:
        """Called once, when both connections are open."""
        self.count_opened()

    async def from_client(self, data: bytes) -> None:
        """Handle bytes of the client. Raises `Cut` to close its connection."""
        self.to_server(data)

    def from_server(self, data: bytes) -> bytes:
        """The bytes that the client gets for `data` of the server."""
        return data

    def to_server(self, data: bytes) -> None:
        """Send bytes to the server."""
        self._server.write(data)

    def to_client(self, data: bytes) -> None:
        """Send bytes to the client, unless it has disconnected or the proxy swallows them."""
        if not self._proxy.swallows:
            self.answer(data)

    def answer(self, data: bytes) -> None:
        """Send bytes of the proxy itself to the client, unless it has disconnected."""
        if data and not self._client.is_closing():
            self._client.write(data)

    def cut(self, *, reset: bool = False) -> None:
        """Close the client's connection, with RST if `reset`; the server sees an end of input."""
        client = self._client.get_extra_info("socket")
        if reset and client.fileno() != -1:  # it is closed before `run` notices and forgets it
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._client.close()

    def count_opened(self) -> None:
        """Count this connection as opened."""
        self._counted = True
        self._proxy.count(opened=1)

    def _count_closed(self) -> None:
        if self._counted:
            self._counted = False
            self._proxy.count(closed=1)

    async def _read_client(self) -> None:
        # A task of its own, so that a disconnect is noticed even while a fault delays forwarding.
        while data := await _read(self._client_reader):
            self._inbox.put_nowait(data)
        self._count_closed()
        self._inbox.put_nowait(b"")

    async def _forward_client(self) -> None:
        try:
            while data := await self._inbox.get():
                await self.from_client(data)
        except Cut as cut:
            self.cut(reset=cut.reset)
        except Exception as error:  # noqa: BLE001 - raised again when the test leaves the proxy
            self._proxy.failures.append(error)
            self.cut()
        finally:
            # Close only our half, so that the server still handles earlier input.
            with suppress(OSError):
                self._server.write_eof()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_CHUNK)
    except OSError:
        return b""


class TcpProxy:
    """A proxy on 127.0.0.1 in front of `host`:`port`, as a context manager.

    It runs in its own thread; its methods may be called from any thread and from async tests.
    Methods that wait take a timeout in seconds and raise `TimeoutError`. An error inside the
    proxy is raised on leaving the context.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.port: Final = free_port()
        """The port on 127.0.0.1 on which the proxy listens."""
        self.swallows = False
        """Whether the server's bytes are dropped now."""
        self.failures: list[Exception] = []
        """Errors inside the proxy, for example in a callback of the test."""
        self._opened = 0
        self._closed = 0
        self._changed = threading.Condition()
        self._refusals: int | None = 0
        self._links: set[Link] = set()
        self._listener: asyncio.Server | None = None
        self._held: socket.socket | None = None

    @property
    def opened(self) -> int:
        """How many client connections have been opened."""
        return self._opened

    @property
    def closed(self) -> int:
        """How many of the opened connections have ended."""
        return self._closed

    def wait_until_closed(self, connections: int, timeout: float = 30.0) -> None:
        """Wait until at least `connections` connections have ended.

        Raises `TimeoutError` after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed >= connections, timeout):
                raise TimeoutError(
                    f"{self._closed} of {connections} connections closed within {timeout} s"
                )

    def cut_all(self, *, reset: bool = False) -> None:
        """Close every client's connection now, with RST instead of FIN if `reset`."""
        self._call(self._cut_all(reset=reset))

    @contextmanager
    def swallow_server(self) -> Generator[None]:
        """Drop the server's bytes inside the block; the clients' bytes still reach the server."""
        self.swallows = True
        try:
            yield
        finally:
            self.swallows = False

    def refuse_connections(self, times: int | None = None) -> None:
        """Accept and then close the next `times` connections; None means all, until 0 is set."""
        self._refusals = times

    def pause_listening(self) -> None:
        """Stop listening, so that clients cannot connect; open connections stay."""
        self._call(self._stop_listening())

    def resume_listening(self) -> None:
        """Listen again, on the same port."""
        self._call(self._listen())

    def count(self, *, opened: int = 0, closed: int = 0) -> None:
        """Add to the counters; only links call this."""
        with self._changed:
            self._opened += opened
            self._closed += closed
            self._changed.notify_all()

    def _link(self, client: Streams, server: Streams) -> Link:
        return Link(self, client, server)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve((reader, writer))
        except asyncio.CancelledError:  # from `_shut_down`; asyncio of Python 3.11 would print it
            pass
        finally:
            writer.close()

    async def _serve(self, client: Streams) -> None:
        if not self._refuses():
            await self._carry(client, self._target, self._link)

    async def _carry(
        self, client: Streams, target: tuple[str, int], make: Callable[[Streams, Streams], Link]
    ) -> None:
        try:
            server = await asyncio.open_connection(*target)
        except OSError:  # the server is down, so the client's connection is closed
            return
        link = make(client, server)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def _refuses(self) -> bool:
        if self._refusals is None:
            return True
        self._refusals, refuses = max(0, self._refusals - 1), self._refusals > 0
        return refuses

    async def _listen(self) -> None:
        held, self._held = self._held or self._hold(), None
        self._listener = await asyncio.start_server(self._accept, sock=held)

    def _hold(self) -> socket.socket:
        """Bind the port: nobody else takes it, and clients are refused until it listens."""
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", self.port))
        return held

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            # What was accepted in this turn must be attached first: in Python 3.11 a closed server
            # leaves such a connection open, without an owner.
            for listening in self._listener.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await asyncio.sleep(0)
            self._listener.close()
            self._listener = None
            self._held = self._hold()

    async def _cut_all(self, *, reset: bool) -> None:
        for link in self._links:
            link.cut(reset=reset)

    async def _shut_down(self) -> None:
        await self._stop_listening()
        if self._held is not None:
            self._held.close()
        # A connection that was just accepted gets its task some turns of the loop later, from a
        # task of asyncio's own. So this ends only when no task is left.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the last transports close on the loop's next turn

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"proxy on port {self.port}", daemon=True
        )
        self._thread.start()
        self.resume_listening()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._shut_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL)
        self._loop.close()
        if self.failures and error is None:
            raise self.failures[0]
