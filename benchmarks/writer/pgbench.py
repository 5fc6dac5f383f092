"""pgbench with the library's own statement: the yardstick for one event per transaction."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.sample_event import SUBJECTS, event
from benchmarks.writer.statement_parameters import single

from dsql_outbox.schema.named_statements import statement
from dsql_outbox.servers.postgres_account import server_options
from dsql_outbox.servers.postgres_programs import server_programs

_MADE_UP = {
    "id": "lpad(to_hex(:n::bigint), 32, '0')::uuid",
    "entity_id": "('CAR-' || :client_id || '-' || :subject)",
    "expected": "NULL",
}
"""Parameters that pgbench computes per event; the others are constants of the run, or NULL."""


@contextmanager
def script() -> Iterator[tuple[Path, list[str]]]:
    """Write the statement to a file for pgbench; yields it and the options with its constants."""
    sample = single(event("CAR-1-12345", 1))
    absent = {name: "NULL" for name, value in sample.items() if value is None}
    made_up = absent | _MADE_UP
    given = {name: value for name, value in sample.items() if name not in made_up}
    with TemporaryDirectory() as folder:
        path = Path(folder, "write.sql")
        path.write_text(_rendered(made_up))
        Path(folder).chmod(0o755)
        path.chmod(0o644)
        yield path, [f"--define={name}={value}" for name, value in given.items()]


def rate(url: str, path: Path, options: list[str], clients: int, until: str) -> float:
    """Run pgbench and return its transactions per second.

    `until` is its option that ends the run: ``-T4`` after 4 seconds, ``-t500`` after 500
    transactions of each client.
    """
    done = subprocess.run(
        [
            str(server_programs() / "pgbench"), "-n", "-M", "prepared", f"-c{clients}",
            until, f"-f{path}", *options, url,
        ],
        capture_output=True, text=True, check=False, **server_options(),
    )  # fmt: skip
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or found is None:
        raise RuntimeError(done.stderr)
    return float(found[1])


def _rendered(made_up: Mapping[str, str]) -> str:
    text = re.sub(r"'[^'\n]*'", _without_colon, statement("event_write_one", "outbox").decode())
    text = re.sub(r"%\((\w+)\)s", lambda name: made_up.get(name[1], f":{name[1]}"), text)
    numbers = f"\\set n random(1, {(1 << 62)})\n\\set subject random(1, {SUBJECTS})\n"
    return f"{numbers}{text};\n"


def _without_colon(literal: re.Match[str]) -> str:
    """The same literal; pgbench takes ``:MI`` for a variable, even within one."""
    return "E" + literal[0].replace(":", "\\x3a") if ":" in literal[0] else literal[0]
