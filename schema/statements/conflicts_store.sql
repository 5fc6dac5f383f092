-- Store the conflict report of this process. No other process changes its row.
INSERT INTO {schema}.outbox_conflicts (owner, seen_at, report)
VALUES (%(owner)s, clock_timestamp(), %(report)s::json)
ON CONFLICT (owner) DO UPDATE SET seen_at = EXCLUDED.seen_at, report = EXCLUDED.report
