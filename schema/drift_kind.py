"""The type of a difference between a database and what this version needs."""

from typing import Literal

import msgspec

DriftKind = Literal[
    "missing_schema",
    "missing_table",
    "missing_view",
    "missing_column",
    "extra_column",
    "wrong_type",
    "wrong_null",
    "wrong_key",
    "wrong_view",
    "missing_index",
    "wrong_index",
    "invalid_index",
    "missing_migration",
    "changed_migration",
    "newer_migration",
    "missing_shards",
    "orphaned_shard",
    "missing_role",
    "superuser_role",
    "missing_right",
    "needless_right",
]


class Drift(msgspec.Struct, frozen=True):
    """One difference.

    `name` is the object that differs. `text` is a sentence with the difference and
    the command that repairs it.
    """

    kind: DriftKind
    name: str
    text: str
