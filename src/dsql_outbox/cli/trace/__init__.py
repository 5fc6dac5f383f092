"""``dsql-outbox trace``: the trace of one event, drawn as a tree.

`jaeger_search` (by `jaeger_answers`) and `otlp_file` read spans, both in the format of
`otlp_json`. `command` picks the trace. `cli/span_tree.py` draws it, because the
demo draws traces, too.
"""
