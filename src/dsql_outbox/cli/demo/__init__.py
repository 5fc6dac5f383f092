"""``dsql-outbox demo``: write, relay and read back events on real servers, and check the result.

`command` starts the servers and runs the `stages`, which write, relay and read back. `results`
holds the invariants (pure), and `report` prints them and the progress. `span_tree` draws the spans
of one event.
"""
