"""Doors: the outbox in programs that are written with other frameworks.

Each door is a module and an extra of the same name, and uses the public API only.
`sqlalchemy` is a retried unit of work for sessions of SQLAlchemy.
"""
