"""The token of the console, the cookie of a browser that sent it, and the limit on wrong tokens."""

import hmac
import logging
import secrets
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import Final, NamedTuple
from urllib.parse import quote

from dsql_outbox.outbox.errors import SettingsError

logger = logging.getLogger("dsql_outbox")

LIFETIME: Final = 12 * 3600
"""Seconds for which a browser needs to give the token only once."""

TRIES: Final = 10
"""After so many wrong tokens within `WINDOW` seconds, the logins of an address are slow."""

WINDOW: Final = 60.0

SLOW: Final = 1.0
"""Seconds that a slow login takes."""

_SHORTEST: Final = 16
_ADDRESSES: Final = 1_024


def new_token() -> str:
    """A random token for one run of a console."""
    return secrets.token_urlsafe(24)


def login_url(url: str, token: str) -> str:
    """The URL that logs a browser in. `url` is that of the console, with a slash at its end."""
    return f"{url}login?token={quote(token, safe='')}"


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
        self._token = None if token is None else token.encode(errors="surrogatepass")
        self.wrong_tokens = WrongTokens()

    @property
    def needs_token(self) -> bool:
        """Whether a token is set."""
        return self._token is not None

    @property
    def cookie_name(self) -> str:
        """The name of the cookie. It differs by token.

        Browsers share cookies between the ports of a host, so two consoles on one host would
        otherwise end each other's login.
        """
        return f"dsql_outbox_console_{self._signature('name')[:8]}"

    def lets_in(self, cookies: Mapping[str, str]) -> bool:
        """Whether a browser with these cookies may see what the database holds."""
        return not self.needs_token or self.admits(cookies.get(self.cookie_name, ""))

    def accepts(self, token: str) -> bool:
        """Compare a token with the set one, in a time that does not depend on the difference."""
        given = token.encode(errors="surrogatepass")
        return self._token is not None and hmac.compare_digest(given, self._token)

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


class _Tries(NamedTuple):
    number: int
    until: float


class WrongTokens:
    """Counts and logs the wrong tokens of each address. `now` is a monotonic clock in seconds.

    Never refuses the right token: all users of this machine have one address, as have all
    clients behind a proxy, so anybody could lock the others out. The delay is no protection
    of a weak token: its length is.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._tries: dict[str, _Tries] = {}  # from the oldest window to the newest

    def delay(self, address: str) -> float:
        """The seconds that a login of this address takes, whatever its token is."""
        tries = self._tries.get(address)
        return SLOW if tries and tries.number >= TRIES and tries.until > self._now() else 0.0

    def add(self, address: str) -> None:
        """Count a wrong token, and log it unless there were too many in this window."""
        now = self._now()
        tries = self._tries.get(address)
        if tries is None or tries.until <= now:
            self._tries.pop(address, None)
            if len(self._tries) >= _ADDRESSES:
                del self._tries[next(iter(self._tries))]
            tries = _Tries(0, now + WINDOW)
        self._tries[address] = tries = tries._replace(number=tries.number + 1)
        if tries.number > TRIES:
            return
        logger.warning("console: wrong token from %s", address)
        if tries.number == TRIES:
            logger.warning(
                "console: too many wrong tokens from %s: for %.0f s its logins are slow and "
                "its wrong tokens are not logged",
                address,
                tries.until - now,
            )
