"""Proxies that cause faults on purpose between a client and PostgreSQL.

`outbox_proxy` is for users: the faults that every user of a writer must expect.
It builds on `postgres_proxy`, which causes a fault at chosen statements, and
that on `tcp_proxy`, which cuts and refuses connections. `client_session` follows
one connection's statements, `faults` holds one function per fault,
`sql_comments` takes the comments out of SQL, and `wire_protocol` reads and makes
messages (both pure).
"""
