"""The programs of a writer: each method as a sequence of primitives, without I/O.

`programs` has a program for each method of a writer. `call_arguments` checks the arguments of a
caller.
`write_many` and `stream` are the state of the calls of that name. `housekeeping` is what a call
does for its process after it is settled.
"""
