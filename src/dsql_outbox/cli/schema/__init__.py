"""``dsql-outbox schema``: create, print, plan or check the tables, and grant rights to them.

The work is done by `dsql_outbox.schema`; `command` holds the options and prints.
"""
