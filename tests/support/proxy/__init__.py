"""Proxies that cause faults on purpose between a client and PostgreSQL.

`postgres_proxy` causes a fault at chosen statements. It builds on `tcp_proxy`, which cuts and
refuses connections. `client_session` follows one connection's statements, `faults` holds one
function per fault, and `wire_protocol` reads and makes messages (pure).
"""
