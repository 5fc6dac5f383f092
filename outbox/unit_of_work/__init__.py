"""One piece of work in one transaction: open, begin, do, judge, commit, wait, and again.

The write of events, `transact`, `Inbox.once`, and each statement that may run twice are bodies
of it. `work` has the loop, which is the same for all of them: doubt, attempt, verdict, budget,
wait, and again. Doubt comes first: what an earlier attempt did whose COMMIT has no answer.

- `primitives`: the steps that a program yields. A program is a generator without I/O.
- `loops`: the two loops that perform a program, for threads and for tasks.
- `connections`: lends connections to the calls of a writer or an inbox.
- `lasting`: one connection for work that comes one piece at a time.
- `turns`: the order of calls that name the same entities.
- `gate`: whether a write or a COMMIT may be sent now.
- `function_run`: one run of the user's function, and whose error ended it.
- `commit`: the answer to COMMIT.
- `budget`: which errors are followed by another attempt, how often, and when. All in one table.
"""
