-- Hear the doorbell that writers ring; the payload of a notification is the schema of the writer.
LISTEN dsql_outbox
