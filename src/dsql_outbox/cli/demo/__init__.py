"""``dsql-outbox demo``: write, relay and read back events on real servers, and check the result.

`workload` defines the events, `stages` writes, relays and reads them back,
`results` holds the invariants (pure), and `report` prints them and the progress. `span_tree` lays
out the spans of one event, and `trace_drawing` draws them. `command` starts the servers and runs
the stages.
"""
