-- Return the next events of one entity in version order, from one key range of headers.
-- Limited by rows and by bytes; the first row is always returned.
-- seen: rows before the limit by bytes, so that the reader knows whether more follow.
SELECT version, event_id, event_name, event_type, created_date, saved_date, data, seen
FROM (
  SELECT page.*, count(*) OVER () AS seen,
    sum(size) OVER (ORDER BY version) - size AS bytes_before
  FROM (
    SELECT h.entity_version AS version, h.event_id, h.event_name, h.event_type, h.created_date,
      h.saved_date, b.event_data::text AS data, b.event_size AS size
    FROM {schema}.event_headers h
    JOIN {schema}.business_events b ON b.id = h.event_id
    WHERE h.entity_type = %(entity_type)s AND h.entity_id = %(entity_id)s
      AND h.entity_version > %(after)s
    ORDER BY h.entity_version
    LIMIT %(rows)s) AS page) AS counted
WHERE bytes_before < %(bytes)s
ORDER BY version
