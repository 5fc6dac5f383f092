"""The losses of a writer process to conflicts, in the JSON form that the database holds.

A writer counts and stores them, and an operator reads them.
"""

from typing import Annotated, Final

import msgspec

# Every writer may store a report, so a reader does not take any number.
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class EntityConflicts(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """The conflicts of one entity. Each counts transactions that touched it and conflicted.

    `alone`: the transaction touched no other entity. `behind`: it touched another one that
    had conflicted more often. `joint`: an event touches this entity together with others.
    `transact`: it is a run of `transact`. `coalesced`: its writer uses group commit.
    `exhausted`: an event of this entity was given up after it.

    `lost_seconds` is the time of the failed attempts and of the waits after them.
    `seen_seconds` is the time since the last conflict.
    """

    entity_type: str
    entity_id: str
    conflicts: Count = 0
    alone: Count = 0
    behind: Count = 0
    joint: Count = 0
    transact: Count = 0
    coalesced: Count = 0
    exhausted: Count = 0
    lost_seconds: Seconds = 0.0
    seen_seconds: Seconds = 0.0


class WriterConflicts(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """The conflicts of one writer process.

    `transactions` conflicted, `exhausted` events were given up, and `lost_seconds` were lost
    in total. Each transaction counts once here, however many entities it touched.
    `is_partial` means that entities with few conflicts are left out.
    """

    transactions: Count = 0
    exhausted: Count = 0
    lost_seconds: Seconds = 0.0
    is_partial: bool = False
    entities: list[EntityConflicts] = []


encode_conflicts: Final = msgspec.json.Encoder().encode
decode_conflicts: Final = msgspec.json.Decoder(WriterConflicts).decode
