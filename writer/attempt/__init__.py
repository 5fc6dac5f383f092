"""The write of events as a body of the unit of work, without I/O.

`event_write` says what an attempt is and what follows its failure: another one, a look-up, or a
split of the batch. `acts` is what it needs of a connection. `pending` is the state of one event
between attempts, and its outcome. `journal` counts the attempts of a call and reports them.
`backoff` has the budgets of a writer. The loop is `outbox.unit_of_work.work`, and the meaning of
a database error is decided in `outbox.failure`.
"""
