"""``dsql-outbox dev``: PostgreSQL, NATS, a publisher and the console in the foreground.

`command` holds the options and prints the first line before anything slow is
imported. `dev_run` starts everything and runs it. `folder_lock` and `ports` keep
several of them apart. `activity` counts what happens, `dev_lines` prints it, and
`sample_events` makes events to write.
"""
