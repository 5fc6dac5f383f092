-- When messages died, for roles that may not read them.
CREATE OR REPLACE VIEW {schema}.dead_letter_times AS
  SELECT shard, died_at FROM {schema}.dead_letters
