"""Jobs that change stored events. One row is their lease, so they exclude each other.

- `job` is the lease, and the file that a killed job left.
- `archive` writes the bytes of old events to files, and `forget` removes events for good.
- `erase` erases what is stored of one entity: `erased_event` is what is left of an event, and
  `erased_rows` are the rows of one transaction.
- `archives` is the operator's tool for both.
"""
