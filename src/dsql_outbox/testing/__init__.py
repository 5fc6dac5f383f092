"""For tests: real servers from wheels, and a proxy that breaks things on purpose."""
