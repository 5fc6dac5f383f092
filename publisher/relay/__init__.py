"""The relay: choose rows, send them, settle what the broker answered."""
