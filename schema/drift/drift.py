"""How a database may differ from what this version needs, as facts."""

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
    """One difference: `name` is what differs, `text` says how, and the command that mends it."""

    kind: DriftKind
    name: str
    text: str
