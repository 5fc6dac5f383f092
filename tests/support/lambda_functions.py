"""The Lambda function of examples/lambda, called as API Gateway calls it."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from time import monotonic
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import pytest
from tests.support.checkout import ROOT

FOLDER = ROOT / "examples" / "lambda"
MODULES = ("handler", "environment", "answers", "spans", "at_return")
EVENTS = "/api/v1/events"
BULK = "/api/v1/events/bulk"


class Answered(NamedTuple):
    """What the function said."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


class Context:
    """Lambda's context, with so many seconds left."""

    def __init__(self, seconds: float) -> None:
        self._ends = monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, round((self._ends - monotonic()) * 1000))


class Function:
    """The function, in this process; its modules are loaded anew."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def __call__(
        self,
        body: bytes | str | None = None,
        *,
        method: str = "POST",
        path: str = EVENTS,
        stage: str = "$default",
        seconds: float = 10.0,
        **fields: Any,
    ) -> Answered:
        """Send a request; what API Gateway would not send goes into `fields`."""
        request = {
            "version": "2.0",
            "rawPath": path,
            "headers": {"content-type": "application/json"},
            "requestContext": {"stage": stage, "http": {"method": method, "path": path}},
            "isBase64Encoded": False,
            **({} if body is None else {"body": body if isinstance(body, str) else body.decode()}),
            **fields,
        }
        answer = self.module.handler(request, Context(seconds))
        assert answer["headers"]["Content-Type"] == "application/json"
        return Answered(answer["statusCode"], json.loads(answer["body"]), answer["headers"])


class LoadFunction(Protocol):
    """Loads the function as a new execution environment does."""

    def __call__(self, url: str | None) -> Function:
        """The function, with its writer at a database."""
        ...


@pytest.fixture
def load_function(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadFunction]:
    """Loads the function; its connection is closed at the end of the test."""
    for name in [name for name in os.environ if name.startswith(("OTEL_", "DSQL_OUTBOX_"))]:
        monkeypatch.delenv(name)
    monkeypatch.syspath_prepend(str(FOLDER))
    loaded: list[ModuleType] = []

    def load(url: str | None) -> Function:
        if url is not None:
            monkeypatch.setenv("DSQL_OUTBOX_DATABASE", url)
        for name in MODULES:
            monkeypatch.delitem(sys.modules, name, raising=False)
        loaded.append(importlib.import_module("handler"))
        return Function(loaded[-1])

    yield load
    for module in loaded:
        if module.writer.cache_info().currsize:
            module.writer().close()
    for name in MODULES:
        sys.modules.pop(name, None)
