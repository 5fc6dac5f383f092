"""``dsql-outbox dev``: PostgreSQL, NATS, a publisher and the console in the foreground.

`command` holds the options, makes sample events, and prints the first line before anything slow is
imported. `dev_run` starts everything and runs it, on the `dev_servers`, which keep several of them
apart. `activity` counts what happens, and `dev_lines` prints it.
"""
