"""How a database differs from what this version needs, and the command that repairs it.

- `inspection` is the entry point: `check` returns every difference.
- `comparison` compares the shape that the migrations make with the one that is there.

`drift_kind`, beside this chapter, is the type of a difference.
"""
