"""What the doctor says about one thing."""

from collections.abc import Mapping
from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail", "unknown"]

Value = float | str | bool | None


class Finding(msgspec.Struct, frozen=True):
    """A verdict on one thing, in a line; `values` are its numbers, times in seconds.

    `remedy` says what to do about it. `sqlstate` is the database's answer when
    asking failed.
    """

    name: str
    verdict: Verdict
    text: str
    remedy: str | None = None
    sqlstate: str | None = None
    values: Mapping[str, Value] = {}


class Report(msgspec.Struct, frozen=True):
    """All that was found; `failed` tells whether any of it is a failure."""

    schema: str
    failed: bool
    findings: tuple[Finding, ...]
