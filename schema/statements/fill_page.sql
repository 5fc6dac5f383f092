-- Read the next stored events in the order of their key, and return those of a target's types, with
-- what their headers are made of. is_first: also the event `after`. size: no more bytes than this, but one event at least. The first
-- two columns say how far the page reached.
WITH page AS (
  SELECT p.*, row_number() OVER ordered AS number, sum(p.size) OVER ordered AS total
  FROM (
    SELECT b.id, b.event_type, b.created_date, b.touches::text AS touches,
      b.headers::text AS headers,
      %(types)s::text IS NULL OR b.subject_type = ANY(%(types)s::text::text[]) AS is_wanted,
      octet_length(b.touches::text) + coalesce(octet_length(b.headers::text), 0) AS size
    FROM {schema}.business_events b
    WHERE b.id >= %(after)s AND (b.id > %(after)s OR %(is_first)s::bool)
    ORDER BY b.id
    LIMIT %(rows)s) AS p
  WINDOW ordered AS (ORDER BY p.id ROWS UNBOUNDED PRECEDING)
), taken AS (
  SELECT * FROM page WHERE total <= %(size)s OR number = 1
), bounds AS (
  SELECT count(*) AS seen, (SELECT id FROM taken ORDER BY id DESC LIMIT 1) AS reached
  FROM taken
)
SELECT bounds.seen, bounds.reached, taken.id, taken.event_type, taken.created_date, taken.touches,
  taken.headers
FROM bounds
LEFT JOIN taken ON taken.is_wanted
ORDER BY taken.id
