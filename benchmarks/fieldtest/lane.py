"""A server on which trials run, one after the other: it may be killed without harm to others."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import psycopg
from psycopg import sql

from dsql_outbox.testing import EmbeddedPostgres

from .harms import Harm
from .judge import Result
from .libraries import Library
from .schedule import events
from .trial import Size, Trial, run_program

_EMPTY, _WRITTEN, _TRIAL = "empty", "written", "trial"


class Lane:
    """A server that runs, and trials on it. Raw logs go to `folder`. `stop` ends them early."""

    def __init__(
        self, server: EmbeddedPostgres, folder: Path, size: Size, stop: Event | None = None
    ) -> None:
        self._stop = stop or Event()
        self._server = server
        self._folder = folder
        self._size = size

    def trials(self, library: Library, seed: int, harms: Sequence[Harm]) -> Iterator[Result]:
        """Run the harms on a library with a seed. Raises `ProgramFailed`.

        The events are written once, and each trial gets a copy of the database.
        """
        run_program(library, "prepare", self._new(_EMPTY))
        if any(harm.written_before for harm in harms):
            url = self._new(_WRITTEN, _EMPTY)
            run_program(library, "write", url, seed, *self._size)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")  # as autovacuum would have done by now
        for harm in harms:
            url = self._new(_TRIAL, _WRITTEN if harm.written_before else _EMPTY)
            log = self._folder / f"{library.module}-{harm.name}-{seed}.log"
            with Trial(library, harm, seed, url, self._size, self._stop) as trial:
                found = trial.run(events(seed, *self._size), self._restart, log)
            if self._stop.is_set():  # in the middle of it
                return
            yield found

    def _restart(self) -> None:
        self._server.kill()
        self._server.start()

    def _new(self, name: str, template: str = "template1") -> str:
        """Make a database as a copy of another one, and return its URL."""
        self._server.drop_database(name)
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with psycopg.connect(self._server.socket_url, autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return self._server.url.rsplit("/", 1)[0] + f"/{name}"
