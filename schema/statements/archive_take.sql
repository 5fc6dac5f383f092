-- Take the bytes of events away that are in an archive now, if they are still those that were
-- read. The rows are locked until the end of the transaction, so nothing names them meanwhile.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.business_events b
SET event_data = NULL, headers = NULL, archive = %(number)s
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(fingerprints)s::text::text[]))
  AS k(id, fingerprint)
WHERE b.id = k.id AND b.fingerprint = decode(k.fingerprint, 'hex') AND b.archive IS NULL
  AND b.event_data IS NOT NULL
