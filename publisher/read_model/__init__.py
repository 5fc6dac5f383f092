"""Rebuilding a read model from the stored events (docs/read-models.md)."""
