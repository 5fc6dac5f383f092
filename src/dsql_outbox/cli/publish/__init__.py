"""``dsql-outbox publish``: the relay as a daemon or as a job that ends.

`command` holds the options. `daemon` runs `relay_run` with signals and the HTTP
endpoints of `http_server`. `availability` probes database and broker every few
seconds, and `health` turns the answers into liveness and readiness.
"""
