"""The relay side: outbox rows to a broker, in order per subject."""
