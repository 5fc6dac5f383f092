"""The trials of ``doctor --probe --report`` with the library itself, in a scratch schema.

`isolation_cases` are Hermitage's cases (pure) and `isolation` runs them. `twenty_writes` writes
under conflict, and `takeover` kills a publisher. `proofs` runs them in a schema of its own.
"""
