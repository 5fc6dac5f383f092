"""Jobs that remove stored events, or a part of them. They share a lease: one runs at a time.

- `job` is the lease, which is the fence of their runs.
- `forget` removes events for good, and `old_events` finds them. `keep` does so again and again, and
  `retention` is the operator's tool.
- `erase` erases what is stored of one entity: `erased_event` is what is left of an event, and
  `erased_rows` are the rows of one transaction. `erasures` is the operator's tool.
  `stored_touches` reads which entities a stored event touches.

One run of `forget`, from its begin to its end:

1. `LifeJob.running` takes the lease, a row that all verbs share, or raises `JobRefused`.
2. The run ends if a target opens or fills, which reads all events.
3. It reads ids page by page, without bytes, and leaves out what a message, a dead letter or a
   failure names.
4. Each transaction proves and renews the lease, counts, and deletes the events of a page with their
   headers and replays. It rests between two of them.
5. At the end the lease is given back.

A job that is killed has done what its transactions have committed, and the next one goes on. A job
that was suspended for longer than its lease goes on if no other has begun. Otherwise the epoch of
the row is another one, and its transaction changes nothing.
"""
