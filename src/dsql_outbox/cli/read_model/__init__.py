"""The command `read-model`: rebuild a read model from the stored events."""
