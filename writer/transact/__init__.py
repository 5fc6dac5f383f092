"""The caller's SQL and events in one transaction.

With `transact` the writer commits and retries: `call` is one call, `run` one run of
the caller's function, `runs` decides what follows a run, and `transaction` is the
object that the function receives. With `append_to` the caller commits and retries:
`append` writes an event into the open transaction.
"""
