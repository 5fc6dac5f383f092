"""What a publisher needs to know and its user does not set: the sizes of a read, the patience."""

from dataclasses import dataclass, fields, replace
from typing import Final, Self

from dsql_outbox.outbox.database.database import Database

from .settings import PublisherSettings

LONG_GATHER: Final = 0.25
"""Seconds: the `TunedSettings.gather` of Aurora DSQL, where each statement costs money, and the
longest one of PostgreSQL."""

GATHER: Final = 0.02
"""Seconds: the `TunedSettings.gather` of PostgreSQL."""


@dataclass(frozen=True, kw_only=True)
class TunedSettings(PublisherSettings):
    """The settings of a publisher, and its constants.

    The constants are fields, so that tests need few rows and no long waits.
    """

    batch_rows: int = 500
    """About how many rows one read returns, of all shards together. A row may take two changes, a
    delete and a dead letter, and a transaction of Aurora DSQL has 3,000. From a database that is 50
    ms away, these are still up to 10,000 rows per second."""

    batch_bytes: int = 8 << 20
    """About how many bytes one read returns, so that large payloads do not fill the memory. A read
    whose bytes take long to arrive asks for fewer rows."""

    broker_patience: float = 30.0
    """Seconds. If only this publisher cannot reach the broker for so long, it leaves its shards to
    others. A broker that restarts is back before. It takes none before it has reached the broker
    once."""

    gather: float = LONG_GATHER
    """Seconds between two turns of the settler while only deletes and failures wait, so that one
    deletes many rows. A crash sends the messages of this time again, as it does those that are on
    their way."""

    def for_database(self, database: Database) -> Self:
        """Return the settings with the defaults that depend on the kind of the database."""
        settings = super().for_database(database)
        return settings if database.is_dsql else replace(settings, gather=GATHER)

    @classmethod
    def of(cls, settings: PublisherSettings) -> Self:
        """Return the settings with the constants, unless they have them already."""
        if isinstance(settings, cls):
            return settings
        given = (each.name for each in fields(PublisherSettings) if each.init)
        return cls(**{name: getattr(settings, name) for name in given})
