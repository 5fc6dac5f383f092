"""Topics that a broker refuses, which a writer would refuse first."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer, WriterSettings, topic_template


def _no_fault(_topic: str) -> None:
    """Find nothing wrong."""


@contextmanager
def writer_of_any_topic(
    database: Database, settings: WriterSettings | None = None
) -> Iterator[Writer]:
    """Open a writer that stores any topic, as programs without this library do."""
    with (
        mock.patch.object(topic_template, "topic_fault", _no_fault),
        Writer(database, settings) as writer,
    ):
        yield writer
