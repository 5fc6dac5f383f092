"""``dsql-outbox publish``: the relay as a daemon or as a job that ends.

`command` holds the options. `daemon` runs `relay_run` with signals and the HTTP
endpoints of `http_server`. `HealthProbe` and `Health` of the publisher tell what
these answer.
"""
