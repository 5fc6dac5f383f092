"""The caller's SQL and events in one transaction.

With `transact` the writer commits and retries: `call` is one call and
the runs of the caller's function: a body of the unit of work. `transaction` is the object that
the function of `Writer.transact` receives. With a sessionmaker or a pool of the caller it receives
a session or a connection, which `outbox.sessions` lends. Outside of a run the caller commits and
retries: `append` writes an event into the open transaction.
"""
