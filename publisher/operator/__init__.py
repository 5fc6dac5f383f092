"""Tools for an operator or a program: messages that were not delivered, topics, status.

- `tool` is the base of all, and the row that records what one did; `operations` reads those rows.
- `messages`: `Messages`, whose verbs are find, retry, drop and replay.
- `selection` says which messages; `undelivered` is their one type, and reads them.
- `topic_pauses`: topics whose messages wait until an operator resumes them.
- `conflicts`: which entities conflict most, by the reports of the writers.
- `replay`: stored events that are to be sent again; `event_pages` selects and reads them.
- `requeue` puts messages into the outbox again, for a retry of dead messages and for a replay.
  `replay_positions` gives them their positions, `replay_rate` limits the rate.
"""
