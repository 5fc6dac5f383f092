"""The connections of a writer or an inbox: kept after a success, closed after a failure.

psycopg_pool does not fit, for three reasons:

- It replaces a closed connection in the background. When many writes conflict, that
  doubles the openings, and a DSQL cluster accepts 100 per second.
- It hides the reason why a connection could not be opened. Here the caller gets the
  driver's error.
- Its threads or tasks run for ever. After a Lambda function was frozen they are dead. Here an
  opening has a thread or a task, which ends with it.

See docs/decisions/2026-11-28-no-connection-pool.md.

A connection that is being opened belongs to its owner, not to the call that asked for it:
see docs/decisions/2026-11-27-an-opening-belongs-to-the-writer.md.

`shelf` decides which call gets which connection, and when another one is opened. `lender`
lends them and takes them back. `thread_connections` and `task_connections` open them, and
perform programs on them, for threads and for tasks.
"""
