-- The headers that an event gives its message, as a JSON object of texts, so that a replay
-- has them. NULL: none, or written by a version that did not know them.
ALTER TABLE {schema}.business_events ADD COLUMN IF NOT EXISTS headers json
