"""The Host header, by which a server knows a page of another site; pure.

A page of another site reaches a server of the reader's machine or network if its own name
resolves to the address of that server (DNS rebinding). The browser then sends that name.
"""

from collections.abc import Iterable
from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether an address is reached from its own machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def in_url(host: str) -> str:
    """A host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host


def without_port(host: str) -> str:
    """The host of a Host header, in lower case."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def is_foreign(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request to a loopback address names another host; no browser names none."""
    host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
    name = without_port(host)
    return name != "" and not is_loopback(name.removeprefix("[").removesuffix("]"))
