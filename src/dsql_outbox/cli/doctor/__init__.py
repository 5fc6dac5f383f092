"""``dsql-outbox doctor``: check a database before production.

`checks` only read; the `*_probes` try features, with --probe. `verdicts` judges numbers (pure).
`examined_database` is the connection that they share, with their scratch table; it runs them and
turns failures into findings. `finding` is the result type, and prints it.
"""
