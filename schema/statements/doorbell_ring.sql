-- Ring the doorbell of the publishers of a schema, after a COMMIT and outside of its transaction.
-- All schemas share one channel, and the payload names the schema: LISTEN takes no parameter, so a
-- channel per schema would be an identifier that is made of a name.
SELECT pg_catalog.pg_notify('dsql_outbox', %(schema)s::text)
