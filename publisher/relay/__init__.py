"""The relay: it reads rows of the outbox, sends them, and settles the broker's answers.

Presence is the state. A row in the outbox waits; a row that the broker has is deleted by
its whole key. Nothing else is stored of the relay's progress. Three activities run side
by side (`relay`) and share their memory (chapter `memory`):

    outbox --> read --> rows per subject --> send --> broker
      ^                                       |
      +------------------ settle <------------+

**Read** (`reader`). One statement at a time asks for several ranges of each shard. The
*sweep* goes through all rows, again and again; the *tail* stays near the newest (`scans`).
Failed rows whose time has come are read by their keys (`holds`). Rows that cannot be sent now
are passed over in SQL: subjects with a failed row, subjects with enough rows in memory, and
topics that are paused (`topics`) or use their share of the memory (`shares`). They are read
*again* when they can be sent. That only saves work. Order depends on the rule of admission
(`queues`). From then on a row has a stage, and `rows` has all stages and the steps between them.

**Send** (`sender`). Rows wait per subject, first in, first out (`subjects`). A subject has
one run on its way: one message, or several if the sink keeps their order. Many calls of the
sink run at a time, each with runs of subjects that are free. The answer for the last message
of a run lets its subject go on immediately (`outcomes`).
When the broker as a whole fails, `breaker` decides when to try it again. `traced_sink` checks
the answers and reports each message to the hooks.

**Settle** (`settler`). Acknowledged rows are deleted, failures are recorded, and messages
that were given up are buried, in one statement per batch of each kind. A subject goes on
after a dead letter only when the burial has committed.

So a failing or hot subject does not hold up the messages of other subjects. Order, loss and
fairness do not depend on clocks: the leases say which publisher sends a shard, and each row
in memory belongs to one epoch of them. `store` is the port to the tables, `sql_store` the
tables themselves.
"""
