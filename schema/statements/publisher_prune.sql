-- Delete publishers that died without a withdrawal. Their rows count for nothing after
-- one lease, but would never be deleted. Limited to what one transaction may change. The age
-- is divided, since a product of a stored number may overflow.
DELETE FROM {schema}.outbox_publishers p
USING (
  SELECT s.owner FROM {schema}.outbox_publishers s
  WHERE (extract(epoch FROM clock_timestamp()) - extract(epoch FROM s.seen_at))::float8
      / %(leases)s::float8
    > s.lease_seconds
  LIMIT 1000) AS gone
WHERE p.owner = gone.owner
