-- Read the next stored events in the order of their key, and return those of a target's types, with
-- what their headers are made of. is_first: also the event `after`. size: no more bytes than this, but one event at least. The first
-- three columns say how far the page reached, and how many events of the types have no bytes, here or in an archive.
WITH page AS (
  SELECT p.*, row_number() OVER ordered AS number, sum(p.size) OVER ordered AS total
  FROM (
    SELECT b.id, b.event_type, b.created_date, b.touches::text AS touches,
      b.headers::text AS headers, b.archive, b.event_data IS NULL AND b.archive IS NULL AS is_bare,
      %(types)s::text IS NULL OR b.subject_type = ANY(%(types)s::text::text[]) AS is_wanted,
      octet_length(b.touches::text) + coalesce(octet_length(b.headers::text), 0)
        + CASE WHEN b.archive IS NULL THEN 0 ELSE b.event_size END AS size
    FROM {schema}.business_events b
    WHERE b.id >= %(after)s AND (b.id > %(after)s OR %(is_first)s::bool)
    ORDER BY b.id
    LIMIT %(rows)s) AS p
  WINDOW ordered AS (ORDER BY p.id ROWS UNBOUNDED PRECEDING)
), taken AS (
  SELECT * FROM page WHERE total <= %(size)s OR number = 1
), bounds AS (
  SELECT count(*) AS seen, (SELECT id FROM taken ORDER BY id DESC LIMIT 1) AS reached,
    count(CASE WHEN is_wanted AND is_bare THEN 1 END) AS bare
  FROM taken
)
SELECT bounds.seen, bounds.reached, bounds.bare, taken.id, taken.event_type, taken.created_date,
  taken.touches, taken.headers, taken.archive
FROM bounds
LEFT JOIN taken ON taken.is_wanted AND NOT taken.is_bare
ORDER BY taken.id
