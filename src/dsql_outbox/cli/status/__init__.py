"""``dsql-outbox status``: the backlog, the failures, and the publishers.

`StatusReader` of the publisher reads the numbers, `tables` turns them into text
tables, and `live_view` repeats both for --watch, with rates. `command` holds the
options.
"""
