"""The commands for messages that were not delivered, and for sending events again.

`command` has ``list``, ``show``, ``retry`` and ``drop``, and `replay_command` has ``replay``. They
are the verbs of `dsql_outbox.operations.Messages`. `selection_options` makes its `Selection` from
options, `message_text` formats a message, and `result_report` prints the results of a retry or a
replay; `replay_summary` is that of a dry run. `mapped_message` shows what a map makes of an event.
"""
