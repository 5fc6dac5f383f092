"""``dsql-outbox status``: the backlog, the failures, and the publishers.

`StatusReader` of the publisher reads the numbers, and `tables` turns them into text tables.
`command` holds the options.
"""
