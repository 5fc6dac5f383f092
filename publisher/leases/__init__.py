"""Leases: which publisher relays which shard, and for how long (docs/leases.md)."""
