"""PostgreSQL and NATS servers from wheels, for the demo, ``embedded:`` databases and tests.

`postgres_server` and `nats_server` hold the two servers. `server_process` starts
and stops a process and is the base of both; `server_guard` stops it when this process
is killed. `postgres_programs` finds the programs of PostgreSQL. `postgres_account`
decides which user runs them, because it refuses to run as root. `private_files` opens
files and folders that another user of the machine may have tampered with.
"""
