"""``dsql-outbox publish``: the relay as a daemon or as a job that ends.

`command` holds the options, `topics_file` reads the file of --topics. The relay
itself is in `cli/relay`.
"""
