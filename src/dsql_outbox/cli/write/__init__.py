"""``dsql-outbox write``: store events from files and standard input.

`inputs` reads lines. `loader` stores their events in order. `report` counts and prints receipts
and failures. `descriptors` reads and writes without blocking the event loop. `command` holds the
options.
"""
