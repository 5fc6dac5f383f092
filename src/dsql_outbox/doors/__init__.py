"""Doors to frameworks. Each is an extra.

- `starlette`: writer and publisher in the lifespan of an application, error answers.
- `fastapi`: the same, with a dependency and a description for OpenAPI.
- `aws_lambda`: the relay as a function, and the bell that a producer rings.
- `sqlalchemy`: a retried unit of work for sessions of SQLAlchemy.

`background_publisher` is the publisher of a lifespan. Doors use the public API only.
"""
