"""The result of one check or probe."""

from collections.abc import Mapping
from typing import Literal

import msgspec

Verdict = Literal["ok", "warn", "fail", "unknown"]

Value = float | str | bool | None


class Finding(msgspec.Struct, frozen=True):
    """A verdict and the line that explains it.

    `values` are the numbers behind it, times in seconds. `remedy` is the advice. `sqlstate`
    is the database's error code if the check could not be made.
    """

    name: str
    verdict: Verdict
    text: str
    remedy: str | None = None
    sqlstate: str | None = None
    values: Mapping[str, Value] = {}


class Report(msgspec.Struct, frozen=True):
    """All findings; `failed` says whether one of them has the verdict `fail`."""

    schema: str
    failed: bool
    findings: tuple[Finding, ...]
