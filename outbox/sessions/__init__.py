"""The sessions of callers: what `append_to`, `remember`, `transact` and `once` take.

`append_to` and `remember` take a session, as a `CallerSession`. It has a transaction of the
caller. A method that is a `Joining` joins it, runs its statements in it, and after an error fails
it, or ends its connection. `joinable` finds the session of an object, and says which objects are
taken. `driver_sessions` has the connections of psycopg 3, asyncpg and psycopg2,
`sqlalchemy_session` SQLAlchemy's objects on each of them, and `django_session` Django's connection.

`transact` and `once` take what makes sessions. `lent_sessions` lends a session of a sessionmaker, a
connection of a pool, or Django's for each run, and closes one that met a conflict or an outage.
`sqlalchemy_transaction` and `django_transaction` are the transaction of a run in it, and
`deadline_watch` ends it in time.

The statements are one text for all: each parameter is a text that the statement casts. No
module imports asyncpg, psycopg2, SQLAlchemy or Django before a caller gives one of their objects.
"""
