"""From a valid event to the SQL statements that store it.

`parameters` turns events into the parameters of a statement. `chunks` cuts a
batch into parts that fit one transaction. A write has two forms: one statement
with data-modifying CTEs (the single form), or one transaction of plain
statements (`plain`). `form_probe` builds the question which form a database
supports. `answers` parses their results. No I/O.
"""
