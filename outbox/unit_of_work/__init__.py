"""One piece of work in one transaction: open, begin, do, judge, commit, wait, and again.

The write of events, `transact`, `Inbox.once`, and each statement that may run twice are bodies of
it, each a `Work`. The loop in `work` is the same for all of them. `settle` goes through these
steps until the work has an outcome:

1. `start_attempt` counts the attempt.
2. `resolve_doubt` asks what an earlier attempt without an answer has stored. If it stored the
   work, the work is settled. "Nothing is stored" proves nothing, because the lost statement may
   still arrive. So each attempt meets a lost one by a key, and the second of the two collides.
3. `attempt` does the work by `on_connection`: the `Lender` lends a connection that it kept or
   opened, and takes it back. After an error it closes the connection, unless its owner keeps
   connections or the error is a unique violation. One whose session is not clean is always
   closed.
4. The `Gate` admits what may store something: the one round trip of a sealed attempt, or the
   COMMIT of an open one, in which a function of the user ran. Nothing is sent after the deadline.
5. `classify` (`outbox.failure`) gives an error its meaning. If the gate had admitted something
   and no answer came, that is `IN_DOUBT`, and `record_failure` keeps the work in doubt until its
   end.
6. `decide` returns `Again`: the works that follow, and the wait before them. Usually it is the same
   work; events go on in parts, each a work of its own. `Spending.next_wait` (`budget`) has the
   wait. None means that no budget has this kind of failure, or that the budget or the deadline is
   over. Then `decide` has settled the work. Nobody decides about `NOT_PREPARED`: the work begins
   again.
7. `Sleep` holds no connection. After a conflict the next connection is opened meanwhile, if it is
   the library's. Then the work begins again at 1.

A defect of the library or of a hook settles its work by `fail`. An interrupt, such as a
cancellation, ends the loop, and `abandon` says what is known of each work.

- `primitives`: the steps that a program yields. A program is a generator without I/O.
- `loops`: the two loops that perform a program, for threads and for tasks.
- `connections`: lends connections to the calls of a writer or an inbox.
- `lasting`: one connection for work that comes one piece at a time.
- `turns`: the order of calls that name the same entities.
- `gate`: whether a write or a COMMIT may be sent now.
- `function_run`: one run of the user's function, and whose error ended it.
- `run_transaction`: the port to the transaction of a run, and to the sessions of a caller.
- `own_transaction`: that transaction on a connection of the library or of psycopg's pool.
- `commit`: BEGIN with the mark of a run, its guards (`Guards`), and the answer to COMMIT.
- `faults`: what a test lets fail at the gate.
- `budget`: which errors are followed by another attempt, how often, and when. The budgets of a
  writer are made from its settings, in `writer.budgets`.
"""
