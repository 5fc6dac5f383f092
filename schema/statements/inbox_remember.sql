-- Remember a message that has no place in a subject; no row comes back if it was remembered before.
{inbox_entry}
