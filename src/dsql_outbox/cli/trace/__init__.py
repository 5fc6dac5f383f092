"""``dsql-outbox trace``: the trace of one event, drawn as a tree.

`jaeger` and `otlp_file` read spans, both in the format of `otlp_json`. `tree`
draws them; the demo draws its own spans with it, too. `command` picks the trace.
"""
