"""``dsql-outbox status``: what waits, what failed, and who relays."""
