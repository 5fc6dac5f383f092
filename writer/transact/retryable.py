"""For a retry loop of the caller's own."""

from dsql_outbox.writer.attempt.classification import FailureKind, classify


def is_retryable(error: Exception) -> bool:
    """Whether a transaction was certainly not committed, and may well be if run again.

    True for a conflict and for a server that is full, also under a wrapper such
    as SQLAlchemy's. False for a connection that was lost: if that was at COMMIT,
    the transaction may be committed. A unique violation is no conflict here.
    """
    return classify(error, sent=True).kind in {FailureKind.CONFLICT, FailureKind.OUTAGE}
