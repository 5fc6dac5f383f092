"""Defects to plant in the statements: one line of SQL each, which the schedules must find."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, LiteralString, NamedTuple
from unittest.mock import patch

from dsql_outbox.schema import named_statements
from dsql_outbox.schema.named_statements import numbered_statement, statement


class Defect(NamedTuple):
    """A text of a statement, and what stands in its place."""

    statement: str
    text: str
    planted: LiteralString


DEFECTS: Final = {
    "delete_by_position": Defect("outbox_delete", " AND o.event_id = k.event_id", ""),
    "delete_in_all_targets": Defect("outbox_delete", "o.shard = k.shard AND ", ""),
    "give_attempts_back": Defect(
        "failure_record", "GREATEST(f.attempts, EXCLUDED.attempts)", "EXCLUDED.attempts"
    ),
    "release_a_blocked_message": Defect(
        "failure_record", "GREATEST(f.retry_at, EXCLUDED.retry_at)", "EXCLUDED.retry_at"
    ),
    "forget_by_position": Defect("failure_forget", " AND f.event_id = k.event_id", ""),
    "list_by_position": Defect("failure_list", " AND o.event_id = page.event_id", ""),
    "find_by_position": Defect("failure_find", " AND f.event_id = k.event_id", ""),
    "sweep_nothing_at_a_position_in_use": Defect(
        "failure_sweep", " AND o.event_id = s.event_id", ""
    ),
    "bury_by_position": Defect("outbox_bury", " AND o.event_id = k.event_id", ""),
    "bury_and_forget_by_position": Defect("outbox_bury", " AND f.event_id = k.event_id", ""),
    "copy_by_position": Defect("outbox_copy", " AND o.event_id = k.event_id", ""),
    "wait_for_another_subject": Defect(
        "outbox_read", " AND p.subject_type = o.subject_type AND p.subject_id = o.subject_id", ""
    ),
    "wait_for_another_type": Defect(
        "outbox_read_range", " AND p.subject_type = o.subject_type", ""
    ),
    "wait_for_a_later_row": Defect(
        "outbox_read", "p.position = o.previous_position", "p.position > o.previous_position"
    ),
    "read_the_place_itself": Defect(
        "outbox_read_range", "(o.position, o.event_id) > (", "(o.position, o.event_id) >= ("
    ),
    "read_a_row_less": Defect("outbox_read", "w.taken <= c.rows", "w.taken < c.rows"),
    "pass_over_all_of_a_subject": Defect(
        "outbox_read", ")::bigint <= q.position IS NOT TRUE", ")::bigint IS NULL"
    ),
    "take_from_another_epoch": Defect("lease_take", " AND l.epoch = k.epoch\n", "\n"),
    "take_what_another_has": Defect(
        "lease_take", "l.owner IS NULL OR", "l.owner IS NOT NULL OR l.owner IS NULL OR"
    ),
    "take_under_the_same_epoch": Defect("lease_take", "l.epoch + 1", "l.epoch"),
    "renew_another_epoch": Defect("lease_renew", "l.epoch = k.epoch AND ", ""),
    "renew_for_another": Defect("lease_renew", " AND l.owner = %(owner)s", ""),
    "beat_for_another_epoch": Defect("lease_beat", "l.epoch = k.epoch AND ", ""),
    "release_another_epoch": Defect("lease_release", "l.epoch = k.epoch AND ", ""),
    "write_at_an_old_position": Defect(
        "event_write_one", "greatest(EXCLUDED.position, e.position + 1)", "EXCLUDED.position"
    ),
    "name_the_last_but_one": Defect(
        "event_write_one",
        "previous_position = e.position,",
        "previous_position = e.previous_position,",
    ),
    "replay_at_an_old_position": Defect(
        "replay_candidates", "greatest(e.position, before.position)", "before.position"
    ),
    "replay_a_replay_that_waits": Defect(
        "replay_candidates",
        "SELECT r.position FROM {schema}.outbox_replays r WHERE r.event_id = b.id",
        "SELECT 0",
    ),
    "retry_at_an_old_position": Defect(
        "letter_candidates", "greatest(e.position, before.position)", "0"
    ),
    "retry_and_keep_the_letter": Defect(
        "letter_delete", "d.died_at = k.died_at", "d.died_at <> k.died_at"
    ),
    "fill_under_another_epoch": Defect("fill_advance", "AND epoch = %(epoch)s ", ""),
    "fill_a_dropped_target": Defect("fill_advance", " AND state = 'filling'", ""),
    "write_for_a_dropped_target": Defect("event_write_one", " WHERE state <> 'dropped'", ""),
    "fill_another_shard": Defect(
        "fill_insert", "SELECT %(first)s + b.shard", "SELECT %(first)s + 1 - b.shard"
    ),
    "forget_what_a_replay_names": Defect(
        "forget_named",
        "SELECT r.position FROM {schema}.outbox_replays r WHERE r.event_id = b.id",
        "SELECT 0",
    ),
}
"""By a name that says what the defect does."""


@contextmanager
def planted(defect: Defect) -> Generator[None]:
    """Plant a defect in the statement as it is loaded."""
    right = named_statements.read_sql

    def read_sql(folder: str, name: str) -> LiteralString:
        text = right(folder, name)
        if (folder, name) != ("statements", defect.statement):
            return text
        if defect.text not in text:
            raise AssertionError(f"{name} has no text {defect.text!r}")
        return text.replace(defect.text, defect.planted)

    _forget_statements()
    try:
        with patch.object(named_statements, "read_sql", read_sql):
            yield
    finally:
        _forget_statements()


def _forget_statements() -> None:
    """Have the statements loaded again, in both forms in which they are kept."""
    statement.cache_clear()
    numbered_statement.cache_clear()
