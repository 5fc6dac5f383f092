-- Return the topics of the waiting messages and of some stored events, at most {limit} of each.
SELECT w.topic FROM (SELECT o.topic FROM {schema}.outbox o LIMIT {limit}) AS w
UNION
SELECT s.topic FROM (SELECT b.topic FROM {schema}.business_events b LIMIT {limit}) AS s
