"""Try a transaction, judge its failure, wait, try again: without I/O."""
