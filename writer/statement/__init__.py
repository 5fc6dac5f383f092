"""From an event to SQL parameters, and from the answer to receipts."""
