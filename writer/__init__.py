"""The write side: one event, one transaction, retried on conflict."""
