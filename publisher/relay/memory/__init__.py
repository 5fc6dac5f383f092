"""The relay's knowledge of the outbox, and its decisions.

- `rows` has the life of a row in memory: its stages, and what is counted of each.
- `pages` has rows that nothing has happened to, which take all steps together, and `paging` decides
  which rows these are.
- `scans` decides where a shard is read, `queues` which rows are admitted and sent.
- `shares` decides how much of the memory and of the messages on their way a topic may use.
- `subjects` has a shard and a subject, with the rows that wait and those that failed.
- `retry_times` has the failed rows by the time of their next attempt. `topics` decides which topics
  take no messages, and `breaker` when to try a broker that failed.
- `changes` has what the tables must still learn.

No module of this chapter reads, writes or waits. Callers pass the time.
"""
