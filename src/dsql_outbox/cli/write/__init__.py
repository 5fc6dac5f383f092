"""``dsql-outbox write``: store events from files and standard input.

`inputs` reads records. `loader` hands them to workers over
`work_queue`, in order per subject, and stores them. `reporter` prints receipts
and failures, `counts` the totals and the progress bar. `descriptors` reads and
writes without blocking the event loop. `command` holds the options.
"""
