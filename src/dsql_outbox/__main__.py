"""The command ``dsql-outbox``, also as ``python -m dsql_outbox``."""

import sys


def main() -> None:
    """Run the command; a missing extra is one line on stderr and exit code 2."""
    try:
        from dsql_outbox.cli import main as command  # noqa: PLC0415 - it may be missing

        command(prog_name="dsql-outbox")
    except ImportError as error:
        if not hasattr(error, "extra"):  # `MissingExtra`, which without libpq cannot be imported
            raise
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - there may be no click
        sys.exit(2)


if __name__ == "__main__":
    main()
