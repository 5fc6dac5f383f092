"""The Terraform example agrees with itself, the command, the function, the image and the docs.

No Terraform and no AWS takes part: whether the AWS provider takes it is not known.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.support.checkout import ROOT
from tests.support.hcl import parsed
from tests.support.parsed_options import command_of, params

from dsql_outbox.aws_lambda import MARGIN
from dsql_outbox.brokers.sqs import parse_sqs_url
from dsql_outbox.cli.relay.daemon import Address
from dsql_outbox.cli.telemetry.exports import FLUSH_SECONDS
from dsql_outbox.outbox import Database

FOLDER = ROOT / "examples" / "terraform"
TEXTS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.tf"))}
TEXT = "".join(re.sub(r"(^|\s)#.*", "", text) for text in TEXTS.values())
README = (FOLDER / "README.md").read_text()
LAMBDA = (ROOT / "docs/lambda.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SAMPLE = {
    "var.name": "shop",
    "var.region": "eu-west-1",
    "var.architecture": "arm64",
    "path.module": str(FOLDER),
    "aws_dsql_cluster.outbox.identifier": "abcdefghijklmnopqrstuvwxyz",
    "local.queue": "sqs.eu-west-1.amazonaws.com/123456789012/shop-events.fifo",
}
"""What interpolations become in a plan."""


@cache
def files() -> list[dict[str, Any]]:
    """What the files say."""
    return [parsed(FOLDER / name) for name in TEXTS]


def named(kind: str) -> dict[str, Any]:
    """Blocks with a name, of all files: variables, outputs or locals."""
    found: dict[str, Any] = {}
    for blocks in files():
        for block in blocks.get(kind, []):
            found |= block
    return found


def typed(kind: str) -> dict[str, dict[str, Any]]:
    """Resources or data of all files, by ``type.name``."""
    return {
        f"{type_}.{name}": body
        for blocks in files()
        for block in blocks.get(kind, [])
        for type_, bodies in block.items()
        for name, body in bodies.items()
    }


RESOURCES, DATA, LOCALS = typed("resource"), typed("data"), named("locals")
PUBLISHER = LOCALS["publisher"]
FUNCTION = RESOURCES["aws_lambda_function.producer"]
RELAY = RESOURCES["aws_lambda_function.relay"]


def filled(text: str) -> str:
    """A text with its interpolations replaced as a plan would; others are an error."""
    return re.sub(r"\$\{(.*?)\}", lambda found: SAMPLE[found[1]], text)


def url(duty: str) -> str:
    """The database's URL for a duty, from the expression that makes all of them."""
    assert 'for duty in ["writer", "publisher", "operator"]' in TEXTS["main.tf"]
    (form,) = re.findall(r'duty => "(dsql://[^"]+)"', TEXTS["main.tf"])
    host = filled(LOCALS["host"])
    return filled(form.replace("${duty}", duty).replace("${local.host}", host))


def actions(role: str) -> dict[str, list[str]]:
    """What an IAM role may do: the actions and on what, of all its policies."""
    found: dict[str, list[str]] = {}
    for body in RESOURCES.values():
        if body.get("role") == f"${{aws_iam_role.{role}.name}}":
            (document,) = re.findall(r"data\.(aws_iam_policy_document\.\w+)\.json", body["policy"])
            for statement in DATA[document]["statement"]:
                found |= dict.fromkeys(statement["actions"], statement["resources"])
    return found


# --- what refers to what ----------------------------------------------------------------


def test_what_is_referred_to_is_there_and_what_is_there_is_used() -> None:
    variables = set(re.findall(r"\bvar\.(\w+)", TEXT))
    assert variables == set(named("variable"))
    assert set(re.findall(r"\blocal\.(\w+)", TEXT)) == set(LOCALS)
    documents = set(re.findall(r"\bdata\.(\w+\.\w+)", TEXT))
    assert documents == set(DATA)
    resources = set(re.findall(r"(?<!data\.)\b(aws_\w+\.\w+)\.\w+", TEXT))
    assert resources <= set(RESOURCES)
    assert set(re.findall(r"depends_on = \[([^]]*)\]", TEXT))
    for listed in re.findall(r"depends_on = \[([^]]*)\]", TEXT):
        assert {name.strip() for name in listed.split(",") if name.strip()} <= set(RESOURCES)


def test_the_steps_name_outputs_variables_and_roles_that_are_there() -> None:
    outputs = named("output")
    told = set(re.findall(r"terraform output (?:-raw )?(\w+)", README))
    assert told | {"operator_role", "operator_url", "queue_url"} == set(outputs)
    assert {"operator_role", "operator_url"} <= set(re.findall(r"`(\w+)`", README))
    assert set(re.findall(r"-var (\w+)=", README)) == {"publishers"}
    (grant,) = re.findall(r"dsql-outbox (schema grant .*)", README)
    command, args = command_of(grant.split()[:1])
    assert (command.name, args) == ("schema", [])
    assert set(re.findall(r"--(\w+) shop_\1\b", grant)) == {"writer", "publisher", "operator"}
    assert named("variable")["name"]["default"] == "shop"


def test_the_mapping_is_that_of_the_docs() -> None:
    roles = (ROOT / "docs/schema.md").read_text()
    assert 'AWS IAM GRANT "shop_writer" TO \'arn:aws:iam:' in roles
    assert '"AWS IAM GRANT \\"${var.name}_${duty}\\" TO \'${role}\';"' in TEXTS["outputs.tf"]
    for duty in ("writer", "publisher", "operator"):
        assert re.search(rf"{duty} += aws_iam_role\.{duty}\.arn", TEXTS["outputs.tf"])


# --- rights -----------------------------------------------------------------------------


def test_each_role_may_do_what_its_duty_needs_and_no_more() -> None:
    connect = {"dsql:DbConnect"}
    logs = {"logs:CreateLogStream", "logs:PutLogEvents"}
    image = {"ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
    roles = {name.split(".")[1] for name in RESOURCES if name.startswith("aws_iam_role.")}
    assert {role: set(actions(role)) for role in roles} == {
        "admin": {"dsql:DbConnectAdmin"},
        "operator": connect,
        "writer": connect | logs | {"lambda:InvokeFunction"},
        "relay": connect | logs | {"sqs:SendMessage"},
        "schedule": {"lambda:InvokeFunction", "sqs:SendMessage"},
        "publisher": connect | {"sqs:SendMessage"},
        "start": image | logs,
    }
    for role in roles:
        for action, resources in actions(role).items():
            assert (resources == ["*"]) is (action == "ecr:GetAuthorizationToken"), action
            assert "*" not in action


def test_the_publisher_runs_as_its_own_role_and_not_as_that_which_starts_it() -> None:
    task = RESOURCES["aws_ecs_task_definition.publisher"]
    assert task["task_role_arn"] == "${aws_iam_role.publisher.arn}"
    assert task["execution_role_arn"] == "${aws_iam_role.start.arn}"
    assert FUNCTION["role"] == "${aws_iam_role.writer.arn}"


def test_nobody_posts_events_without_a_signature_and_nothing_reaches_the_publishers() -> None:
    assert RESOURCES["aws_apigatewayv2_route.producer"]["authorization_type"] == "AWS_IAM"
    assert "ingress" not in TEXT
    assert PUBLISHER["readonlyRootFilesystem"] is True
    assert PUBLISHER["linuxParameters"]["capabilities"]["drop"] == ["ALL"]


# --- the publisher ----------------------------------------------------------------------


def options() -> dict[str, Any]:
    return params(list(PUBLISHER["command"]))


def test_the_publishers_options_are_ones_that_the_command_has() -> None:
    found = options()
    assert found["log_format"] == "json"
    assert isinstance(found["listen"], Address)
    assert not found["until_empty"]
    assert 'ENTRYPOINT ["/app/.venv/bin/dsql-outbox"]' in DOCKERFILE


def test_the_publisher_is_not_killed_before_its_drain_and_what_follows_are_over() -> None:
    sink = parse_sqs_url(sink_url())
    # A request of SQS may take its time-out twice; then spans and metrics are sent.
    assert PUBLISHER["stopTimeout"] > options()["drain"] + 2 * sink.address.timeout + FLUSH_SECONDS
    assert 45 <= PUBLISHER["stopTimeout"] <= 120, "Fargate's limit"


def test_the_health_check_asks_where_the_publisher_listens() -> None:
    check = PUBLISHER["healthCheck"]
    listen = options()["listen"]
    assert f"http://{listen.host}:{listen.port}/healthz" in check["command"][-1]
    (seconds,) = re.findall(r"timeout=(\d+)", check["command"][-1])
    assert int(seconds) < check["timeout"] < check["interval"]
    assert check["command"][1].startswith("/app/.venv/bin/")
    assert "--from=build /app/.venv /app/.venv" in DOCKERFILE


def sink_url() -> str:
    (value,) = [
        each["value"] for each in PUBLISHER["environment"] if each["name"] == "DSQL_OUTBOX_SINK"
    ]
    return filled(value)


def test_the_publishers_environment_is_read_by_the_command() -> None:
    command, _ = command_of(["publish"])
    known = {param.envvar for param in command.params}
    names = {each["name"] for each in PUBLISHER["environment"]}
    assert names == {"DSQL_OUTBOX_DATABASE", "DSQL_OUTBOX_SINK"} <= known


def test_the_sink_is_the_queue() -> None:
    queue = RESOURCES["aws_sqs_queue.events"]
    sink = parse_sqs_url(sink_url())
    assert sink.name == filled(queue["name"])
    assert sink.is_fifo is queue["fifo_queue"] is True
    assert sink.address.region == "eu-west-1"
    assert sink.url is not None, "asking for it by its name would need sqs:GetQueueUrl"


@pytest.mark.parametrize("duty", ["writer", "publisher", "operator"])
def test_the_urls_are_of_the_database_roles(duty: str) -> None:
    assert url(duty) == (
        f"dsql://shop_{duty}@abcdefghijklmnopqrstuvwxyz.dsql.eu-west-1.on.aws/postgres"
    )
    Database(url(duty))


# --- the function -----------------------------------------------------------------------


def test_the_function_is_what_make_zip_makes() -> None:
    package = (ROOT / "examples/lambda/package.py").read_text()
    assert 'f"lambda-{machine}.zip"' in package
    assert 'default=ROOT / "build"' in package
    assert Path(filled(LOCALS["zip"])).resolve() == ROOT / "build" / "lambda-arm64.zip"
    assert FUNCTION["runtime"] == "python3.13"
    assert 'default="3.13"' in package
    assert f"| handler | `{FUNCTION['handler']}` |" in LAMBDA


def test_the_function_has_the_settings_of_the_docs() -> None:
    (memory,) = re.findall(r"\| memory \| (\d+) MB or more", LAMBDA)
    (timeout,) = re.findall(r"\| timeout \| (\d+) s or more", LAMBDA)
    assert FUNCTION["memory_size"] >= int(memory)
    assert int(timeout) <= FUNCTION["timeout"] <= 30, "API Gateway waits no longer"
    (environment,) = FUNCTION["environment"]
    for variable in environment["variables"]:
        assert f"| `{variable}` |" in LAMBDA
    integration = RESOURCES["aws_apigatewayv2_integration.producer"]
    assert integration["payload_format_version"] == "2.0"


def test_the_routes_are_those_of_the_function() -> None:
    handler = (ROOT / "examples/lambda/handler.py").read_text()
    routes = re.findall(r'"(/api/v1/\S+)": \("(\w+)"', handler)
    assert {f"{method} {path}" for path, method in routes} == set(LOCALS["routes"])
    assert RESOURCES["aws_apigatewayv2_stage.producer"]["name"] == "$default"


# --- the relay's function ---------------------------------------------------------------


def test_the_relay_is_in_the_same_zip_with_the_settings_of_the_docs() -> None:
    package = (ROOT / "examples/lambda/package.py").read_text()
    assert RELAY["filename"] == FUNCTION["filename"] == "${local.zip}"
    assert RELAY["runtime"] == FUNCTION["runtime"]
    assert f"| handler | `{RELAY['handler']}` |" in LAMBDA
    assert f'"{RELAY["handler"].partition(".")[0]}.py"' in package
    (timeout,) = re.findall(r"\| timeout \| (\d+) s; at least twice", LAMBDA)
    assert RELAY["timeout"] == int(timeout) >= 2 * MARGIN
    assert f"margin={MARGIN}" in LAMBDA
    (environment,) = RELAY["environment"]
    found = environment["variables"]
    assert found.keys() == {"DSQL_OUTBOX_DATABASE", "DSQL_OUTBOX_SINK"}
    assert filled(found["DSQL_OUTBOX_SINK"]) == sink_url()
    assert found["DSQL_OUTBOX_DATABASE"] == '${local.urls["publisher"]}'
    assert '"AWS IAM GRANT \\"${var.name}_publisher\\" TO \'${aws_iam_role.relay.arn}\';"' in TEXT


def test_the_schedule_and_the_producer_may_invoke_the_relay_and_do() -> None:
    (target,) = RESOURCES["aws_scheduler_schedule.relay"]["target"]
    assert target["arn"] == "${aws_lambda_function.relay.arn}"
    assert target["role_arn"] == "${aws_iam_role.schedule.arn}"
    (environment,) = FUNCTION["environment"]
    bell = environment["variables"]["DSQL_OUTBOX_RELAY_FUNCTION"]
    assert bell == "${aws_lambda_function.relay.function_name}"
    for role in ("schedule", "writer"):
        relay = ["${aws_lambda_function.relay.arn}"]
        assert actions(role)["lambda:InvokeFunction"] == relay
    default = named("variable")["relay_schedule"]["default"]
    assert (default, "once a minute" in LAMBDA) == ("rate(1 minute)", True)
    assert (
        f"| reserved concurrency | {named('variable')['relay_concurrency']['default']}:" in LAMBDA
    )


def test_an_invocation_that_fails_is_told_and_not_repeated() -> None:
    queue = "${aws_sqs_queue.relay_failures.arn}"
    (target,) = RESOURCES["aws_scheduler_schedule.relay"]["target"]
    (dead_letters,) = target["dead_letter_config"]
    assert dead_letters["arn"] == queue
    rung = RESOURCES["aws_lambda_function_event_invoke_config.relay"]
    assert rung["destination_config"] == [{"on_failure": [{"destination": queue}]}]
    for limits in (rung, *target["retry_policy"]):
        assert limits["maximum_retry_attempts"] == 0
        assert limits["maximum_event_age_in_seconds"] == 60, "the least that AWS takes"
    (events, report) = (actions("publisher"), actions("schedule"))
    assert report["sqs:SendMessage"] == [queue] != events["sqs:SendMessage"]
