"""The write side: store an event in one transaction, and retry after a conflict.

`writer_base` says what both writers promise. `writer` and `async_writer` have each `program`
performed, in a thread and on an event loop: all decisions are in the programs. `core` is what all
calls of a writer share. `attempt` decides about retries, `statement` turns events into SQL,
`transact` runs the caller's SQL and events in one transaction, `session_transact` begins it in a
session of the caller, and `coalesce` is group commit. `settings` are those of users, and
`tuned_settings` the numbers that they do not set. `budgets` has the retries, `topic_template` the
topic of an event, and `http_status` the HTTP answer to an error. `doorbell` wakes publishers, and
`backlog_alarm` reports old messages.

**One write**, ``writer.write(event)``:

1. `Programs.write` (`program.programs`) opens the `Gate` of the call, which has its deadline.
   `pend` (`attempt.pending`) parses the event, finds its topic, and returns a `Pending`: the
   values of the event's rows, the `Journal` with the call's budgets, and later the outcome.
2. If an earlier call for one of the event's entities has met a conflict, the call waits behind it
   (`EntityTurn`). Otherwise no write waits for another one, unless it is in a lane of `coalesce`.
   With ``max_retries`` there are no turns.
3. `EventWrite` (`attempt.event_write`) is the work, and `settle` is its loop, whose walk is in
   the docstring of `outbox.unit_of_work`. `write_many` gives it each part of its list, and a lane
   of `coalesce` the events of several calls.
4. `EventWrite.attempt` calls `Acts.write` (`attempt.acts`), which takes a connection. At the
   first use of a writer, `learn_layout` reads the numbers of shards and targets there, and asks
   which form of a write the database supports.
5. `WriteStatements` (`statement.write_statements`) returns the statement and its values. They are
   encoded before `Gate.admit` marks the event as sent, so that nothing but the server and the way
   to it can fail from then on. One round trip follows. The single form is one statement in
   autocommit, without a COMMIT. On a connection with an isolation level it stands between BEGIN and
   COMMIT, as the five statements of the plain form always do. If the server refuses the single form
   only now, the same attempt sends the plain form.
6. After a success, `Pending.settle_stored` makes the receipt. `Programs._end` rings the doorbell,
   and `Housekeeping.after` may read the age of the backlog. `Pending.receipt` returns the receipt.
7. After an error, `classify` (`outbox.failure`) has given it a meaning, by which
   `EventWrite.decide` goes on (`_decide` chooses, `_decide_and_tell` takes the turn):

   - Conflict: the call takes the turn of its entities, and keeps it until it ends, so that later
     calls wait behind it. Then it waits, and writes the event again.
   - Collision, a unique violation: a look-up of the id. If the event is stored, `settle_found`
     ends the call at once. If not, the collision counts as a conflict for the budget and the
     receipt, but takes no turn.
   - The subject is not at `expected_version`: a look-up of the id, since the event itself may have
     moved the subject. If it is not stored, `settle_stale` ends the call with `StaleVersion`, or
     with `OutcomeUnknown` if an attempt is in doubt and the subject is behind that version, since
     the lost attempt may still commit.
   - No answer, as after a lost COMMIT: the event may be stored. After the wait, the attempt begins
     with a look-up (`EventWrite.resolve_doubt`), on any connection. If the stored event has the
     `write_id` of this call, that attempt was committed, and the call has its receipt. With another
     `write_id`, another call wrote it: `DuplicateEvent`, or its receipt with
     ``on_duplicate="return"`` if the content is the same. If nothing is stored, the same id is
     written again. If the lost statement arrives later, the second of the two collides.
   - A batch goes on in halves after a race. If it fails again in an outage, one of its events may
     fail the server: `_sift` tries halves until that event is alone.
8. If no attempt follows, because the budget or the deadline is over or no budget has this
   failure, `Pending.give_up` ends the call with the driver's error, or with `OutcomeUnknown` if
   the event is in doubt. Otherwise the loop begins again. The write then has a connection that
   was never used.

**One transact**, ``writer.transact(function)``:

1. `Programs.call` makes a `Call` (`transact.call`), the work of the same loop. Each attempt is a
   `Run`. With `entities`, the call first takes their turn, and keeps it for all runs.
2. `Call._complete` has an `OwnTransaction` send BEGIN with the mark of the run
   (`outbox.unit_of_work.commit`) and calls `FunctionRun.complete`
   (`outbox.unit_of_work.function_run`). `invoke` lends the function a handle of the connection,
   which ends with the run. Both are objects of one session, in which one exchange runs at a time.
   A session in which one runs at the end of the run is dropped.
3. `Transaction.append` goes to `Programs.append`: `Run.prepare_append` parses the event, and
   `_append` sends the statement of a write in the open transaction. `prepare_due` of
   `outbox.database.exchange` prepares it in a round trip before the next BEGIN, if it is due.
   `Run.record_append` remembers the event and, if it is the first one, the fence.
4. `Run.judge` judges the run. It returns None, or a `Verdict`: whose error it is, and which error
   the caller gets. To the rules of `FunctionRun` it adds two. While an earlier run is in doubt,
   another fence than that run's is refused. If the function swallowed a `StaleVersion` and went on
   in the failed transaction, the caller still gets it. An error of its own that the function raises
   instead goes to the caller.
5. Without a verdict the gate admits COMMIT. `OwnTransaction.commit` sends it in one text behind the
   guards (`Guards`): ``run_guard.sql`` fails unless the transaction has the mark, and
   ``event_guard.sql`` unless it has all events of the run (`Run.own`). If one has failed,
   `Run.judge_guard` has the verdict, which is that of `FunctionRun`. Aurora DSQL has no mark, so a
   run without an event has no guard there. And `commit` looks at the answer: for an aborted
   transaction the server answers ROLLBACK.
6. An error of the function ends the call after a rollback. An error of the database raises
   `RunFailed`, so that the connection is given up, and becomes a `DatabaseFailure`. If the session
   has lost the prepared append, the loop runs the function again, whatever it made of the error.
7. A lost COMMIT leaves the call in doubt. `Call.resolve_doubt` looks up the fence before the next
   run: if a lost run stored it, that run's result is the result of the call. If not, the function
   runs again and must append the same event first, so that one of the two runs collides. Without
   a fence nothing could collide, so the function does not run again: `OutcomeUnknown`.
8. `Call.decide` returns `Again` with the wait, or settles the call. In doubt, it looks up the
   fence once more before an error that is not retried: the function may have failed because the
   lost run was committed. `Call.result` returns the winner's value, or the receipt of a duplicate,
   or raises the error.

**One transact in a session of the caller**, ``transact(writer, sessions, function)``, differs in
the connections, and in the way to COMMIT:

1. `sessions_of` (`outbox.sessions.lent_sessions`) makes `Sessions` of a sessionmaker or a pool.
   They lend in the place of the writer's `Lender`: those of a pool a connection for the same
   `OwnTransaction`, and those of a sessionmaker a `SqlalchemyTransaction`. Numbers of shards and
   the form of the write are asked on a connection of the writer.
2. While the function runs, `run_of` (`outbox.unit_of_work.function_run`) finds its run by its
   session. So `append_to` goes on as `Transaction.append` does.
3. A session of a sessionmaker commits itself. The `commit` of the connection that the pool has lent
   is replaced for the run: it sends the guards, in a round trip of their own, and the gate admits
   COMMIT behind them.

**One append_to**, ``writer.append_to(session, event)``:

1. `session_of` (`outbox.sessions.joinable`) recognises the object and returns its `CallerSession`:
   of a driver, of SQLAlchemy or of Django. `CallerSession.join` finds the caller's transaction,
   and refuses a session that would commit the statement on its own.
2. At the first use of a writer, `learn_layout` runs on a connection of the writer.
3. `CallerSession.run` sends the statement of a write in the caller's transaction: one round trip
   for the single form. Nothing is retried, and the caller commits.
4. A collision or a stale version is looked up on a connection of the writer: `DuplicateEvent`.
   If the single form was refused, `prove_form` asks on such a connection which form the caller's
   next try gets.
5. After any error or interrupt, `refuse_commit` has `CallerSession.fail` send a statement that
   fails, unless the transaction has failed already. Without an answer to it the connection is
   ended. So the caller cannot commit rows without their event. In a run, it is noted for the judge.
"""

from dsql_outbox.writer.program.stream import StoredEvent
from dsql_outbox.writer.statement.answers import StoredEntity
from dsql_outbox.writer.transact.transaction import AsyncTransaction, Transaction

from .async_writer import AsyncWriter
from .http_status import http_status
from .session_transact import transact
from .settings import WriterSettings
from .writer import Writer

__all__ = [
    "AsyncTransaction",
    "AsyncWriter",
    "StoredEntity",
    "StoredEvent",
    "Transaction",
    "Writer",
    "WriterSettings",
    "http_status",
    "transact",
]
