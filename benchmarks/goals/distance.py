"""A database as far away as Aurora DSQL: bytes take 2 ms each way, a commit takes 10 ms more."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg

_SETTINGS = {
    "commit_delay": 10_000,  # microseconds
    "commit_siblings": 0,  # delay a lonely commit, too
}
_DELAY = 2.0  # milliseconds each way, as between two zones


@contextmanager
def at_a_distance(url: str) -> Iterator[str]:
    """Slow the commits of a database for good; yields its URL through a proxy that delays."""
    name = urlsplit(url).path[1:]
    with psycopg.connect(url, autocommit=True) as connection:
        for setting, value in _SETTINGS.items():
            connection.execute(f"ALTER DATABASE {name} SET {setting} = {value}".encode())
    with delayed(url, _DELAY) as far:
        yield far


@contextmanager
def delayed(url: str, delay: float) -> Iterator[str]:
    """Yields the URL of a proxy that delays bytes, each way `delay` milliseconds."""
    parts = urlsplit(url)
    command = [sys.executable, "-m", "benchmarks.goals.far_proxy", str(parts.port), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        user, _, _ = parts.netloc.rpartition("@")
        yield urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
        process.stdin.close()
