"""A cluster that opens no more connections for now: it says so by 53400 at the login."""

import socket
import socketserver
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest
from tests.support.stand_ins import StandIn
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, outcome_of

from dsql_outbox.observability.facts import RetryScheduled

RATE = "Unable to accept connection, rate exceeded."
FULL = "Unable to accept connection, too many open connections."

NAME = "cluster.test"
NO_ROUTE = "224.0.0.1"
"""A group has no route for TCP: "Network is unreachable", as for IPv6 on a host of IPv4."""


class _Refusal(socketserver.StreamRequestHandler):
    """Answers the startup message by an ErrorResponse of PostgreSQL's protocol."""

    server: "_Cluster"

    def handle(self) -> None:
        (length,) = struct.unpack("!I", self.rfile.read(4))
        self.rfile.read(length - 4)
        self.wfile.write(self.server.refusal)


class _Cluster(StandIn):
    """Refuses every connection."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(_Refusal)
        fields = ("SFATAL", "VFATAL", f"C{sqlstate}", f"M{text}")
        body = b"".join(field.encode() + b"\0" for field in fields) + b"\0"
        self.refusal = b"E" + struct.pack("!I", len(body) + 4) + body

    @property
    def url(self) -> str:
        return f"postgresql://writer:secret@127.0.0.1:{self.server_port}/x?sslmode=disable"


@pytest.mark.parametrize(
    ("sqlstate", "text", "wait"), [("53400", RATE, QUICK.cap), ("53300", FULL, QUICK.base)]
)
def test_too_high_a_rate_is_waited_for_the_longest_although_the_driver_has_no_sqlstate(
    open_writer: OpenWriter, facts: Facts, sqlstate: str, text: str, wait: float
) -> None:
    settings = replace(QUICK, max_outage=QUICK.cap)
    with _Cluster(sqlstate, text).serving() as cluster:
        writer = open_writer(cluster.url, settings, [facts])
        error = outcome_of(partial(writer.write, workload_s.car_created()))
    assert isinstance(error, psycopg.OperationalError)
    first = facts.of(RetryScheduled)[0]
    assert (first.failure.sqlstate, first.wait_s) == (None, wait)
    assert text in first.failure.text
    assert first.failure.host == f"127.0.0.1:{cluster.server_address[1]}"
    assert "secret" not in repr(facts.all)


@pytest.mark.parametrize("addresses", [["127.0.0.1", NO_ROUTE], [NO_ROUTE, "127.0.0.1"]])
def test_too_high_a_rate_is_seen_beside_an_address_that_cannot_be_reached(
    open_writer: OpenWriter,
    facts: Facts,
    monkeypatch: pytest.MonkeyPatch,
    addresses: Sequence[str],
) -> None:
    """The name of a cluster has addresses of IPv4 and of IPv6, and each of them fails."""
    real = socket.getaddrinfo

    def resolve(host: str, port: Any, *args: Any, **options: Any) -> Any:
        found = addresses if host == NAME else [host]
        return [each for one in found for each in real(one, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    settings = replace(QUICK, max_outage=QUICK.cap)
    with _Cluster("53400", RATE).serving() as cluster:
        url = cluster.url.replace("127.0.0.1", NAME)
        error = outcome_of(
            partial(open_writer(url, settings, [facts]).write, workload_s.car_created())
        )
    assert isinstance(error, psycopg.OperationalError)
    first = facts.of(RetryScheduled)[0]
    assert first.wait_s == QUICK.cap
    assert RATE in first.failure.text
    assert NO_ROUTE in first.failure.text
