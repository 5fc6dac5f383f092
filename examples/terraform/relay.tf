# The relay as a function: called by a schedule, and rung by the producer after each commit. It shares
# the work with publishers, or does all of it (publishers = 0). docs/lambda.md says when a publisher is better.

resource "aws_cloudwatch_log_group" "relay" {
  name              = "/aws/lambda/${var.name}-relay"
  retention_in_days = var.log_days
}

# Invocations that failed, rung or scheduled. No event is lost with them: it waits in the outbox.
resource "aws_sqs_queue" "relay_failures" {
  name                    = "${var.name}-relay-failures"
  sqs_managed_sse_enabled = true
}

data "aws_iam_policy_document" "relay_logs" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.relay.arn}:*"]
  }
}

data "aws_iam_policy_document" "report_failure" {
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.relay_failures.arn]
  }
}

data "aws_iam_policy_document" "invoke_relay" {
  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [aws_lambda_function.relay.arn]
  }
}

resource "aws_iam_role" "relay" {
  name               = "${var.name}-outbox-relay"
  assume_role_policy = data.aws_iam_policy_document.lambda.json
}

resource "aws_iam_role_policy" "relay_connect" {
  name   = "connect"
  role   = aws_iam_role.relay.name
  policy = data.aws_iam_policy_document.connect.json
}

resource "aws_iam_role_policy" "relay_send" {
  name   = "send"
  role   = aws_iam_role.relay.name
  policy = data.aws_iam_policy_document.send.json
}

resource "aws_iam_role_policy" "relay_logs" {
  name   = "logs"
  role   = aws_iam_role.relay.name
  policy = data.aws_iam_policy_document.relay_logs.json
}

resource "aws_iam_role_policy" "relay_report_failure" {
  name   = "report-failure"
  role   = aws_iam_role.relay.name
  policy = data.aws_iam_policy_document.report_failure.json
}

resource "aws_lambda_function" "relay" {
  function_name                  = "${var.name}-relay"
  role                           = aws_iam_role.relay.arn
  filename                       = local.zip
  source_code_hash               = filebase64sha256(local.zip)
  architectures                  = [var.architecture]
  runtime                        = "python3.13"
  handler                        = "relay.handler"
  memory_size                    = 512
  timeout                        = 60
  reserved_concurrent_executions = var.relay_concurrency

  environment {
    variables = {
      DSQL_OUTBOX_DATABASE = local.urls["publisher"]
      DSQL_OUTBOX_SINK     = "sqs://${local.queue}"
    }
  }

  depends_on = [aws_cloudwatch_log_group.relay, aws_iam_role_policy.relay_logs]
}

# A ring that finds no room is not worth waiting for: the invocation that runs, or the schedule, does its work.
resource "aws_lambda_function_event_invoke_config" "relay" {
  function_name                = aws_lambda_function.relay.function_name
  maximum_event_age_in_seconds = 60
  maximum_retry_attempts       = 0

  destination_config {
    on_failure {
      destination = aws_sqs_queue.relay_failures.arn
    }
  }
}

# --- the schedule -----------------------------------------------------------------------

resource "aws_iam_role" "schedule" {
  name               = "${var.name}-outbox-schedule"
  assume_role_policy = data.aws_iam_policy_document.scheduler.json
}

resource "aws_iam_role_policy" "schedule_invoke" {
  name   = "invoke-relay"
  role   = aws_iam_role.schedule.name
  policy = data.aws_iam_policy_document.invoke_relay.json
}

resource "aws_iam_role_policy" "schedule_report_failure" {
  name   = "report-failure"
  role   = aws_iam_role.schedule.name
  policy = data.aws_iam_policy_document.report_failure.json
}

resource "aws_scheduler_schedule" "relay" {
  name                = "${var.name}-relay"
  schedule_expression = var.relay_schedule

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.relay.arn
    role_arn = aws_iam_role.schedule.arn

    # The next minute's call does what this one could not.
    retry_policy {
      maximum_event_age_in_seconds = 60
      maximum_retry_attempts       = 0
    }

    dead_letter_config {
      arn = aws_sqs_queue.relay_failures.arn
    }
  }
}

# --- the doorbell -----------------------------------------------------------------------

resource "aws_iam_role_policy" "writer_ring" {
  name   = "ring-relay"
  role   = aws_iam_role.writer.name
  policy = data.aws_iam_policy_document.invoke_relay.json
}
