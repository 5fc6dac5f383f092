"""The extra of the commands that start servers of their own: `demo` and `dev`."""

from importlib.util import find_spec

from dsql_outbox.outbox.errors import MissingExtra


def require_demo_extra(command: str) -> None:
    """Raise `MissingExtra` unless both servers and the client of NATS are installed.

    The error names the one extra that has all of them, so that a user installs once. Raises
    `SettingsError` as `server_programs` does.
    """
    from dsql_outbox.servers.nats_server import nats_program  # noqa: PLC0415 - no other command needs it
    from dsql_outbox.servers.postgres_programs import server_programs  # noqa: PLC0415 - as above

    try:
        server_programs()
        nats_program()
    except MissingExtra as error:
        raise MissingExtra("demo", command) from error
    if find_spec("nats") is None:
        raise MissingExtra("demo", command)
