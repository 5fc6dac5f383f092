"""PostgreSQL and NATS servers from wheels, for the demo, ``embedded:`` databases and tests.

`postgres_server` and `nats_server` hold the two servers. `server_process` starts
and stops a process and is the base of both; `server_guard` stops it when this process
is killed. `postgres_programs` finds the programs of PostgreSQL. `postgres_account`
decides which user runs them, because it refuses to run as root. `private_files` opens
files and folders that another user of the machine may have tampered with.
"""

from .nats_server import NatsServer
from .postgres_server import EmbeddedPostgres
from .private_files import kept_secret
from .server_process import free_port, preferred_port

__all__ = ["EmbeddedPostgres", "NatsServer", "free_port", "kept_secret", "preferred_port"]
