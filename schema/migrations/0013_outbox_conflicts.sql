-- What writers lost to conflicts: one row per writer process and hour, changed by that process
-- only. report: JSON, with the counts per entity. Writers delete rows that are a day old.
CREATE TABLE IF NOT EXISTS {schema}.outbox_conflicts (
  owner uuid PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  report json NOT NULL
)
