"""``python -m dsql_outbox``: the same as the command ``dsql-outbox``."""

from dsql_outbox.cli import main

main(prog_name="dsql-outbox")
