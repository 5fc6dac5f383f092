"""``dsql-outbox write``: store events from files and standard input.

`inputs` reads records. `loader` hands them to workers, in order per subject, and stores
them. `report` counts and prints receipts and failures. `descriptors` reads and writes
without blocking the event loop. `command` holds the options.
"""
