-- Put other bytes in the place of those of events, if they are still those that were read. The
-- rows are locked until the end of the transaction, so that no new row names them meanwhile.
-- The arrays are in subqueries: their lengths would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
UPDATE {schema}.business_events b
SET event_data = k.data::json, event_size = octet_length(k.data),
  fingerprint = decode(k.fingerprint, 'hex'), headers = k.headers::json,
  erased_at = %(erased_at)s::text::timestamptz
FROM unnest(
    (SELECT %(event_ids)s::text::uuid[]), (SELECT %(before)s::text::text[]),
    (SELECT %(data)s::text::text[]), (SELECT %(fingerprints)s::text::text[]),
    (SELECT %(headers)s::text::text[]))
  AS k(id, before, data, fingerprint, headers)
WHERE b.id = k.id AND b.fingerprint = decode(k.before, 'hex')
