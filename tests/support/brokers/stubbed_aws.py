"""A client of AWS that answers by script, by the SDK's own stub, which knows the API's shapes."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import boto3
from botocore.stub import Stubber

from .sqs_server import CREDENTIALS


@contextmanager
def stubbed(service: str) -> Generator[Any]:
    """The stub of the client that the next sink for `service` opens."""
    with patch.dict(os.environ, CREDENTIALS):
        client = boto3.client(service, region_name="eu-west-1")
    with (
        Stubber(client) as stub,
        patch.object(boto3.session.Session, "client", lambda *_, **__: client),
    ):
        yield stub
        stub.assert_no_pending_responses()
