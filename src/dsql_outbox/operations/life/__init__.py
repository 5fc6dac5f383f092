"""Jobs that change stored events. One row is their lease, so they exclude each other.

- `job` is the lease, which is the fence of their runs, and the file that a killed job left.
- `archive` writes the bytes of old events to files, and `forget` removes events for good, archived
  or not. `old_events` finds the events for both. `archives` and `retention` are the operator's
  tools, and `rewrite` puts one file in the place of another. `stored_touches` reads which entities
  a stored event touches.
- `erase` erases what is stored of one entity: `erased_event` is what is left of an event, and
  `erased_rows` are the rows of one transaction. `erasures` is the operator's tool.

An archive job, from its begin to its end:

1. `LifeJob.running` takes the lease, a row that all verbs share, or raises `JobRefused`.
   If a killed job left a pending file that no row names, it is removed now.
2. `ArchiveRun` ends if a target opens or fills (`refuse_filling`). It claims the place, and records
   the name of the first file as the pending one.
3. It reads ids page by page, without bytes, and cuts them into files: each is one transaction.
4. It rests, reads the bytes of a file's events, writes the file and its manifest, and reads both
   back.
5. The transaction proves and renews the lease, counts, and records the name of the *next* file as
   the pending one. It takes the bytes of the events that are as in the file, which locks them, and
   records the file. If a row names one of them by then, or one has changed, it is rolled back, and
   the file is written again without those (`_Changed`).
6. At the end no file is pending, unless the run was stopped. The lease is given back.

A job that is killed before a COMMIT leaves the pending file, or a part of it: the events still have
their bytes. Once the lease is over, the next job of any verb removes that file, and ends with an
error if the file's folder is not there. It completes nothing: an archive job reads the events
again, and writes them under another name. A job that is killed after a COMMIT leaves the name of a
file that does not exist yet. A COMMIT whose answer was lost ends the job with the driver's error;
the row of the file says to the next job whether it was done. A job that was suspended for longer
than its lease goes on if no other has begun. Otherwise the epoch of the row is another one, and its
transaction changes nothing.
"""
