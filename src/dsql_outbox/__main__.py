"""The command ``dsql-outbox``, also as ``python -m dsql_outbox``."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(
    words: Sequence[str] | None = None, *, program: str = "dsql-outbox", given: object = None
) -> None:
    """Run the command; a missing extra is one line on stderr and exit code 2.

    `words` are its arguments, by default those of the process. `given` is the database of the
    framework that runs it as `program`.
    """
    words = sys.argv[1:] if words is None else list(words)
    try:
        # For the whole process, and before the imports: they take a second, in which a supervisor
        # may change its mind. A signal that is ignored, as SIGHUP under nohup, stays so.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
        from dsql_outbox.cli.main import main as command  # noqa: PLC0415 - it may be missing

        command(words, prog_name=program, obj=given)
    except ImportError as error:
        if not hasattr(error, "extra"):  # `MissingExtra`, which without libpq cannot be imported
            raise
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - there may be no click
        sys.exit(2)
    except KeyboardInterrupt as error:
        from dsql_outbox.cli.main import stopped_early  # noqa: PLC0415 - it was being imported

        sys.exit(stopped_early(error, words[:1]))


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    main()
