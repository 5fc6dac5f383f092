"""The errors by which a database refuses data-modifying CTEs."""

from typing import Final

from psycopg import errors

NO_SUCH_FORM: Final = (errors.FeatureNotSupported, errors.SyntaxError, errors.DatatypeMismatch)
"""The errors that such a database returns for a probe, an EXPLAIN of the real statement.

Do not match the error of a real write against it: "cached plan must not change
result type" also has the SQLSTATE 0A000.
"""
