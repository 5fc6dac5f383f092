"""``dsql-outbox failures``, ``dead-letters`` and ``replay``: the commands for after a failure."""
