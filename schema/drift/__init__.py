"""Tell how a database differs from what this version needs, and how to mend it."""
