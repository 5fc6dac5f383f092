"""``dsql-outbox trace``: the trace of one event, drawn as a tree.

`command` picks the trace, from Jaeger (`dsql_outbox.traces`) or from a file (`otlp_file`).
`cli/trace_drawing.py` draws it, because the demo draws traces, too.
"""
