"""Group commit: calls of one process share transactions."""
