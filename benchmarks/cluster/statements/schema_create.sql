-- Create the scratch schema, which will hold outbox tables. Fails if it exists.
CREATE SCHEMA {schema}
