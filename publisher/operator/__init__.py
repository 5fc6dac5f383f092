"""Tools for an operator or a program: failures, dead letters, replay.

- `waiting_messages`: messages that wait in the outbox; read only.
- `failures`: messages that failed and still wait; retry them or give them up.
- `dead_letters`: messages that were given up; replay or drop them. `dead_letter_filter`
  selects and reads them.
- `topic_pauses`: topics whose messages wait until an operator resumes them.
- `conflicts/`: which entities conflict most, by the reports of the writers.
- `replay`: stored events that are to be sent again; `event_pages` selects and reads them.
- `requeue` is the part that both replays share: it puts messages into the outbox.
  `replay_positions` gives them their positions, `replay_rate` limits the rate.
- `session` is the connection of a tool, `pages` reads a table page by page.
"""
