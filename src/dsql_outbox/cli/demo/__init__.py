"""``dsql-outbox demo``: the whole way of an event, on real servers, checked."""
