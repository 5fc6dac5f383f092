"""An SQS from a wheel (moto), what a consumer finds there, and an SQS that answers by script."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from tests.support.stand_ins import StandIn
from tests.support.waiting import listens

from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess, free_port

CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


class SqsServer(EmbeddedServer):
    """moto on 127.0.0.1; what it holds is gone when it ends."""

    def __init__(self) -> None:
        super().__init__("SQS", None, signal.SIGTERM)
        self.port = free_port()

    @property
    def endpoint(self) -> str:
        """What clients call."""
        return f"http://127.0.0.1:{self.port}"

    def make_queue(self, *, fifo: bool = False) -> str:
        """Make a queue with a name of its own, which is given back."""
        name = f"events-{uuid4().hex}" + (".fifo" if fifo else "")
        attributes = {"FifoQueue": "true"} if fifo else {}
        client(self.endpoint).create_queue(QueueName=name, Attributes=attributes)
        return name

    def make_topic(self, queue: str) -> str:
        """Make an SNS topic that the queue subscribes to; returns its ARN."""
        sns = client(self.endpoint, "sns")
        attributes = {"FifoTopic": "true"} if queue.endswith(".fifo") else {}
        topic: str = sns.create_topic(Name=queue, Attributes=attributes)["TopicArn"]
        sns.subscribe(
            TopicArn=topic,
            Protocol="sqs",
            Endpoint=topic.replace(":sns:", ":sqs:"),
            Attributes={"RawMessageDelivery": "true"},
        )
        return topic

    def make_bus(self, queue: str) -> str:
        """Make an event bus with the name of the queue, which gets all events; returns its name."""
        events = client(self.endpoint, "events")
        arn = events.create_event_bus(Name=queue)["EventBusArn"]
        target = arn.replace(":events:", ":sqs:").replace("event-bus/", "")
        pattern = json.dumps({"account": [{"exists": True}]})
        events.put_rule(Name="all", EventBusName=queue, EventPattern=pattern)
        events.put_targets(Rule="all", EventBusName=queue, Targets=[{"Id": "1", "Arn": target}])
        return queue

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:  # noqa: ARG002 - in memory
        place = ["-H", "127.0.0.1", "-p", str(self.port)]
        process = self._process = ServerProcess(
            self._name, [sys.executable, "-m", "moto.server", *place], scratch / "sqs.log"
        )
        process.wait_until_ready(partial(listens, self.port))
        return process


@cache  # to make one takes ten times as long as a call
def client(endpoint: str, service: str = "sqs") -> Any:
    """A client to look and to set up."""
    import boto3

    return boto3.client(service, region_name="eu-west-1", endpoint_url=endpoint)


def receive_all(endpoint: str, queue: str) -> list[Any]:
    """Take every message off the queue."""
    sqs = client(endpoint)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    found: list[Any] = []
    ask = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "AttributeNames": ["All"]}
    while messages := sqs.receive_message(QueueUrl=url, **ask).get("Messages"):
        found += messages
        done = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in messages]
        sqs.delete_message_batch(QueueUrl=url, Entries=done)
    sqs.close()
    return found


Answer = tuple[int, dict[str, Any]]
"""A status of HTTP, and the body."""


class ScriptedSqs:
    """Answers requests to send, in turn, by functions of their entries; else takes all."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.script: list[Callable[[list[Any]], Answer]] = []
        self.requests: list[list[Any]] = []
        self._lock = threading.Lock()

    def answer(self, entries: list[Any]) -> Answer:
        """The next answer of the script."""
        with self._lock:
            self.requests.append(entries)
            respond = self.script.pop(0) if self.script else take_all
        return respond(entries)


def take_all(entries: list[Any]) -> Answer:
    """All entries are stored."""
    return 200, {"Successful": [{"Id": entry["Id"], "MessageId": "m"} for entry in entries]}


def fail(code: str, status: int = 400) -> Callable[[list[Any]], Answer]:
    """The whole request is refused."""
    return lambda _entries: (status, {"__type": f"com.amazonaws.sqs#{code}", "message": "because"})


@contextmanager
def scripted_sqs() -> Generator[ScriptedSqs]:
    """An SQS that answers by script, for a while; its queues need no making."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if "Entries" in request:
                status, body = sqs.answer(request["Entries"])
            else:
                status, body = 200, {"QueueUrl": f"{sqs.endpoint}/1/{request['QueueName']}"}
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.0")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with StandIn(Handler).serving() as server:
        sqs = ScriptedSqs(server.server_port)
        yield sqs
