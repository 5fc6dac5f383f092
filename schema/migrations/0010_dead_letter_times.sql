-- How many dead letters there are, for roles that may not read their content.
CREATE OR REPLACE VIEW {schema}.dead_letter_times AS
  SELECT shard, died_at FROM {schema}.dead_letters
