"""The connections of a writer: kept after a success, closed after a failure.

psycopg_pool does not fit, for three reasons:

- It replaces a closed connection in the background. When many writes conflict, that
  doubles the openings, and a DSQL cluster accepts 100 per second.
- It hides the reason why a connection could not be opened. Here the caller gets the
  driver's error.
- It has threads or tasks, which are dead after a Lambda function was frozen.

See docs/decisions/2026-11-24-the-writer-keeps-its-own-connections.md.

`shelf` counts the open connections and keeps them. `lender` lends them and takes them
back, `thread_connections` for threads and `task_connections` for tasks. `call_deadline`
is the limit of their waits.
"""
