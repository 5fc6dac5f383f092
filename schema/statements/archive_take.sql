-- Take the bytes of events away that are in an archive now, if they are still those that were
-- read. The rows are locked until the end of the transaction, so nothing names them meanwhile.
UPDATE {schema}.business_events b
SET event_data = NULL, headers = NULL, archive = %(number)s
FROM unnest(%(event_ids)s::text::uuid[], %(fingerprints)s::text::text[])
  AS k(id, fingerprint)
WHERE b.id = k.id AND b.fingerprint = decode(k.fingerprint, 'hex') AND b.archive IS NULL
  AND b.event_data IS NOT NULL
