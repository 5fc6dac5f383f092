"""The tables, the statements on them, and what brings them into a database."""

from ._statements import statement

__all__ = ["statement"]
