"""The caller's SQL and events in one retried transaction."""
