"""``dsql-outbox trace``: the trace of one event, drawn as a tree."""
