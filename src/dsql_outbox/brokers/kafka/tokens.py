"""Tokens that a broker takes as a login (SASL/OAUTHBEARER), from a provider with a name."""

import re
from collections.abc import Callable
from typing import Any, Final

from dsql_outbox.outbox.errors import MissingExtra, SettingsError

TokenProvider = Callable[[], tuple[str, float]]
"""Returns a token, and when it ends, in seconds since the Unix epoch. It may do I/O."""

_MSK_HOST: Final = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?:")


def msk_tokens(hosts: tuple[str, ...], region: str | None) -> TokenProvider:
    """Return the provider for Amazon MSK with IAM: the login of the AWS SDK, signed.

    Raises `SettingsError` if the region is neither given nor in a host, and `MissingExtra`
    without the extra [msk].
    """
    found = region or next((each[1] for host in hosts if (each := _MSK_HOST.search(host))), None)
    if found is None:
        raise SettingsError("token=msk of a Kafka URL needs the region: &region=eu-west-1")
    try:
        # The SDK is slow to import, and an extra. The package has no types.
        from aws_msk_iam_sasl_signer import (  # type: ignore[import-untyped] # noqa: PLC0415
            MSKAuthTokenProvider,
        )
    except ModuleNotFoundError as error:
        raise MissingExtra("msk", "token=msk of a Kafka URL") from error

    signer: Any = MSKAuthTokenProvider

    def token() -> tuple[str, float]:
        signed, milliseconds = signer.generate_auth_token(found)
        return str(signed), milliseconds / 1000

    return token
