"""The write of events as a body of the unit of work, without I/O.

`event_write` says what an attempt is and what follows its failure: another one, a look-up, or a
split of the batch. `acts` is what a call does on a connection, and `entity_turn` its place among
calls of the same entities. `pending` is the state of one event between attempts, and its outcome.
`journal` counts the attempts of a call, spends its budgets, and reports them. The loop is
`outbox.unit_of_work.work`, and the meaning of a database error is decided in `outbox.failure`.
"""
