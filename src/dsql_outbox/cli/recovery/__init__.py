"""The commands for operators, about deliveries.

They are ``waiting``, ``failures``, ``dead-letters``, ``topics`` and ``replay``. Each has its
own module and calls a class of `dsql_outbox.publisher`: `Waiting`, `Failures`, `DeadLetters`,
`Topics`, `Replay`. `replay_options` is the part that the two commands that replay share,
`replay_summary` the summary of a dry run, and `replay_run` the progress of ``replay``;
`dead_letter_cells` formats a dead letter as text.
"""
