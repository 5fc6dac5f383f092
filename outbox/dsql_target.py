"""Aurora DSQL: TLS to the cluster, and an IAM token as password, signed by AWS's own connector."""

import re
import ssl
import threading
from importlib.util import find_spec
from time import time
from typing import Final
from urllib.parse import unquote

import psycopg
from anyio import to_thread
from psycopg import pq

from .errors import MissingExtra, SettingsError
from .fork import call_in_children
from .target import TCP_USER_TIMEOUT_MS, ConnectParameters

_URL: Final = re.compile(
    r"dsql://(?P<user>[^:@/?#]+)"
    r"@(?P<host>[a-z0-9-]+\.dsql(?:-[a-z0-9]+)?\.[a-z0-9-]+\.on\.aws)(?::(?P<port>\d{1,5}))?"
    r"(?:/(?P<dbname>[^/?#]*))?",
    re.IGNORECASE,
)
"""With ``dsql-xxxx`` in the host name it is reached by AWS PrivateLink."""

_FORM: Final = "dsql://role@cluster.dsql.region.on.aws[:port]/postgres"

_OTHER_FORM: Final = (
    f"the URL of a DSQL database has the form {_FORM}, and no password: IAM signs one"
)

_VPC_ENDPOINT: Final = re.compile(r"\.vpce\.amazonaws\.com", re.IGNORECASE)

_PRIVATE_LINK: Final = (
    "the name of a VPC endpoint does not tell which cluster is meant, which TLS must send (SNI) "
    "and verify: use the cluster's own name for AWS PrivateLink, "
    "dsql://role@cluster.dsql-SUFFIX.region.on.aws/postgres, with private DNS at the endpoint; "
    "SUFFIX is the end of its service's name, com.amazonaws.region.dsql-SUFFIX"
)

_TOKEN_LIFE: Final = 300
"""Seconds. A token is needed while connecting only; a session outlives it."""

_REUSE: Final = 60.0
"""Seconds. Signing takes up to 100 ms, too much for every connection in a storm of retries."""

_EXPIRED: Final = "signature expired"

_DIRECT_TLS: Final = 170_000  # the libpq that starts TLS without asking first, one round trip less


class DsqlTarget:
    """An Aurora DSQL cluster, by URL.

    Role ``admin`` signs for ``dsql:DbConnectAdmin``, every other role for
    ``dsql:DbConnect``; the AWS credentials are those that boto3 finds. Makes no
    I/O and does not import boto3 before the first token is needed.

    Raises `SettingsError` for a URL of another form, `MissingExtra` without the
    connector.
    """

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        if found is None:  # the text must not quote the URL, which may hold a password
            raise SettingsError(_PRIVATE_LINK if _VPC_ENDPOINT.search(url) else _OTHER_FORM)
        if find_spec("dsql_core") is None:
            raise MissingExtra("dsql", "a dsql:// database")
        self._address: ConnectParameters = {
            "host": found["host"].lower(),
            "port": int(found["port"] or 5432),
            "user": unquote(found["user"]),
            "dbname": unquote(found["dbname"] or "postgres"),
        }
        self._signed: ConnectParameters = {}
        self._signed_at = 0.0
        self._renew_lock()
        call_in_children(self._renew_lock)

    def _renew_lock(self) -> None:
        # Parallel first signings failed with NoCredentialsError.
        self._lock = threading.Lock()

    def parameters(self, *, role_path: bool = False) -> ConnectParameters:  # noqa: ARG002 - of the port
        """What libpq needs, with a token that is a minute old at most.

        No path is set: nobody but admin can create in the schema public of a cluster.

        Raises psycopg's `OperationalError` when AWS credentials are missing or refused.
        """
        with self._lock:
            # A token ends by the wall clock; a monotonic one may stand still in a frozen Lambda.
            now = time()
            if not self._signed or not 0 <= now - self._signed_at < _REUSE:
                self._signed, self._signed_at = self._sign(), now
            return self._signed

    async def parameters_async(self, *, role_path: bool = False) -> ConnectParameters:  # noqa: ARG002
        """The same; finding credentials and signing happen in a thread."""
        return await to_thread.run_sync(self.parameters, abandon_on_cancel=True)

    @property
    def begins_at(self) -> None:
        """None: there is one level, and no session setting of ours."""

    def renew(self, refusal: psycopg.OperationalError) -> bool:
        """Forget the token if it expired on its way: the clock was set, or the machine slept.

        Aurora DSQL answers "access denied", and only its hint tells why.
        """
        if _EXPIRED not in str(refusal).lower():
            return False
        with self._lock:
            self._signed = {}
        return True

    def _sign(self) -> ConnectParameters:
        # These bring boto3.
        import botocore.exceptions as aws  # type: ignore[import-untyped]  # noqa: PLC0415
        from botocore.httpsession import where  # type: ignore[import-untyped]  # noqa: PLC0415
        from dsql_core import connection_utils  # type: ignore[import-untyped]  # noqa: PLC0415

        # Not sslrootcert=system: the OpenSSL in psycopg's wheel looks for the system's
        # certificates in a folder that no system has.
        roots = ssl.get_default_verify_paths().cafile or where()
        wanted = self._address | _tls(roots) | {"token_duration_secs": _TOKEN_LIFE}
        try:
            connector = connection_utils.ConnectionUtilities
            signed: ConnectParameters = connector.parse_properties_and_set_token(
                None, wanted, "psycopg"
            )
        except (aws.BotoCoreError, aws.ClientError) as error:
            raise psycopg.OperationalError(
                f"no IAM token could be signed for {self}: {type(error).__name__}"
            ) from error
        return signed

    def __str__(self) -> str:
        return f"{self._address['host']}/{self._address['dbname']}"


def _tls(roots: str) -> ConnectParameters:
    direct = {"sslnegotiation": "direct"} if pq.version() >= _DIRECT_TLS else {}
    return {
        "sslmode": "verify-full",
        "sslrootcert": roots,
        "application_name": "dsql-outbox",
        "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
        **direct,
    }
