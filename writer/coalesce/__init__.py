"""Group commit: concurrent calls of one process share transactions.

`coalescer` is the part of `AsyncWriter` that queues calls, sends a transaction per
lane and answers each caller. `lanes` decides, without I/O, to which lane an event
goes, so that events of one entity keep their order.
"""
