-- Publishers that died without saying so. Their rows count for nothing after one lease
-- of theirs, and would stay for ever. No more at once than a transaction may change.
DELETE FROM {schema}.outbox_publishers p
USING (
  SELECT s.owner FROM {schema}.outbox_publishers s
  WHERE extract(epoch FROM clock_timestamp()) - extract(epoch FROM s.seen_at)
    > %(leases)s::float8 * coalesce(s.lease_seconds, %(default)s::float8)
  LIMIT 1000) AS gone
WHERE p.owner = gone.owner
