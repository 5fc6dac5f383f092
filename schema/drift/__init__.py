"""How a database differs from what this version needs, and the command that repairs it.

- `inspection` is the entry point: `check` returns every difference.
- `shape` reads tables, views, columns and indexes, both from the migrations
  (expected) and from the catalog (found); `comparison` compares the two.
- `drift` is the type of a difference, `remedies` builds the commands.
"""
