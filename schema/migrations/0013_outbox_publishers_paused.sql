-- The topics that a publisher has paused by itself, because the place they go to takes no
-- messages: a JSON array of their names. NULL for a version that did not write it: none.
ALTER TABLE {schema}.outbox_publishers ADD COLUMN IF NOT EXISTS paused text
