"""An AWS Lambda function that relays the outbox to a broker, so no daemon has to run.

A schedule calls it, and the function of handler.py rings it. An invocation relays
until the outbox is empty or its time is up, and returns how many messages left.
Nothing runs between invocations. Settings and deployment are in docs/lambda.md.
"""

from typing import Any

import environment
import spans

from dsql_outbox.aws_lambda import Context, relay_handler

spans.set_up()
environment.set_up_logs()
relay = relay_handler(
    environment.database(), environment.setting("DSQL_OUTBOX_SINK", "the URL of the broker")
)


def handler(event: object, context: Context) -> dict[str, Any]:
    """Relay once; the function's entry point."""
    try:
        return relay(event, context)
    finally:
        spans.flush(context.get_remaining_time_in_millis() / 1000)
