"""``dsql-outbox doctor``: check a database before production.

`checks` only read; the `*_probes` try features in the table of `scratch_table`,
with --probe. `verdicts` judges numbers (pure). `examination` runs checks and
probes and turns failures into findings; `examined_database` is the connection
that they share. `finding` is the result type and `printout` prints it. `report_file`
writes the report, for which `proof/` tries the library itself.
"""
