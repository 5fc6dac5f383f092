"""The way to the database: URLs, connections with a deadline, and statements.

`database` opens connections, as often as `rate_limit` allows. `url_scheme` finds
the `address` in its URL: `postgres_address` or `dsql_address`. `connection` adds
deadlines to psycopg's connections, and `fork` keeps them out of child processes.
`exchange` runs the statements whose speed matters, with `array_literals` as their
parameters. `libpq` reports a missing client library.
"""
