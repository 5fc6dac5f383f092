"""Doors: the outbox in the frameworks that programs are written with.

Each module is one framework, uses the public API only, and is imported where it is used.

- `aws_lambda`: the relay as a function, and the bell that a producer rings.
"""
