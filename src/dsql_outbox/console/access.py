"""The token of the console, and the cookie of a browser that sent it."""

import hmac
from collections.abc import Mapping
from time import time
from typing import Final

from dsql_outbox.outbox import SettingsError

COOKIE: Final = "dsql_outbox_console"

LIFETIME: Final = 12 * 3600
"""Seconds for which a browser needs to give the token only once."""

_SHORTEST: Final = 16


class Access:
    """Decides which clients may read. Without a token, every client that `Guard` lets in.

    The cookie is an expiry time with its signature; the token is the key. Raises
    `SettingsError` for a token that is too short.
    """

    def __init__(self, token: str | None) -> None:
        if token is not None and len(token) < _SHORTEST:
            raise SettingsError(
                f"the token of the console must have at least {_SHORTEST} characters, "
                f"got {len(token)}: make one with `openssl rand -hex 16`"
            )
        self._token = None if token is None else token.encode()

    @property
    def needs_token(self) -> bool:
        """Whether a token is set."""
        return self._token is not None

    def lets_in(self, cookies: Mapping[str, str]) -> bool:
        """Whether a browser with these cookies may see what the database holds."""
        return not self.needs_token or self.admits(cookies.get(COOKIE, ""))

    def accepts(self, token: str) -> bool:
        """Compare a token with the set one, in a time that does not depend on the difference."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token)

    def cookie(self) -> str:
        """A cookie that `admits` takes for `LIFETIME` seconds."""
        expiry = str(int(time()) + LIFETIME)
        return f"{expiry}.{self._signature(expiry)}"

    def admits(self, cookie: str) -> bool:
        """Whether the cookie has a valid signature and has not expired."""
        expiry, _, signature = cookie.partition(".")
        known = hmac.compare_digest(signature.encode(), self._signature(expiry).encode())
        return known and int(expiry) > time()

    def _signature(self, expiry: str) -> str:
        return hmac.new(self._token or b"", f"console {expiry}".encode(), "sha256").hexdigest()
