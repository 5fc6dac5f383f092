"""From a valid event to the SQL statements that store it. No I/O.

`write_statements` chooses the statements of a write. `parameters` turns events into their
parameters, and `answers` parses their results. `chunks` cuts a batch into parts that fit one
transaction.

A write has two forms: one statement with data-modifying CTEs (the single form), or one
transaction of plain statements (`plain`). Both go in one round trip. On a connection with an
isolation level, the statement of the single form goes between BEGIN and COMMIT. `form_probe`
builds the question which form a database supports.
"""
