"""One piece of work in one transaction: its connection, its acts, and what its end means.

The chapter `connections` lends connections and performs programs on them. A program is a
generator without I/O, and `primitives` are the acts that it yields.
`budget` decides when work is tried again, and has the table of all budgets. `lasting` is one
connection for work that comes one piece at a time. `function_run`
judges a run of the user's function. `commit` judges the answer to COMMIT.
"""
