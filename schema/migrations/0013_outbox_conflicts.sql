-- What writers lost to conflicts. Each row belongs to one writer process and one hour, and only that
-- process changes it. Writers delete rows after a day.
-- - report: JSON, with the counts of each entity.
CREATE TABLE IF NOT EXISTS {schema}.outbox_conflicts (
  owner uuid PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  report json NOT NULL
)
