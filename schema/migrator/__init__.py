"""Create the tables in a database, or upgrade them to this version.

- `migrator` applies the migrations or shows its steps, adds shards, and removes the tables.
- `migration` is one file of ``schema/migrations/``; `migration_text` parses it
  into the table, view, column, index or backfill that it makes.
- `shape` reads tables, views, columns and indexes, both from the migrations
  (expected) and from the catalog (found).
- `remedies` builds the commands that repair a schema.
- `index_build` and `backfill` are the two forms that take more than one statement.
"""
