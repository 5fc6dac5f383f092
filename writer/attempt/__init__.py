"""The retries of a write, without I/O.

`steps` decides what is done next: an attempt, a look-up, a wait, or a split of the
batch. `pending` is the state of one event between attempts, and its outcome.
`journal` counts the attempts of a call and reports them.
`backoff` decides how long to wait and when to give up. The meaning of a database error
is decided in `outbox.failure`.
"""
