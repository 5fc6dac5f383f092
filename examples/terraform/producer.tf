# The function of examples/lambda behind an HTTP API. `make zip` makes its zip.

locals {
  zip    = "${path.module}/../../build/lambda-${var.architecture}.zip"
  routes = ["POST /api/v1/events", "POST /api/v1/events/bulk", "GET /api/v1/events/health"]
}

resource "aws_cloudwatch_log_group" "producer" {
  name              = "/aws/lambda/${var.name}-producer"
  retention_in_days = var.log_days
}

data "aws_iam_policy_document" "producer_logs" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.producer.arn}:*"]
  }
}

resource "aws_iam_role_policy" "writer_logs" {
  name   = "logs"
  role   = aws_iam_role.writer.name
  policy = data.aws_iam_policy_document.producer_logs.json
}

resource "aws_lambda_function" "producer" {
  function_name                  = "${var.name}-producer"
  role                           = aws_iam_role.writer.arn
  filename                       = local.zip
  source_code_hash               = filebase64sha256(local.zip)
  architectures                  = [var.architecture]
  runtime                        = "python3.13"
  handler                        = "handler.handler"
  memory_size                    = 512
  timeout                        = 15
  reserved_concurrent_executions = var.producer_concurrency

  environment {
    variables = {
      DSQL_OUTBOX_DATABASE = local.urls["writer"]
      DSQL_OUTBOX_RELAY_FUNCTION = aws_lambda_function.relay.function_name
    }
  }

  depends_on = [aws_cloudwatch_log_group.producer, aws_iam_role_policy.writer_logs]
}

resource "aws_apigatewayv2_api" "producer" {
  name          = "${var.name}-producer"
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_integration" "producer" {
  api_id                 = aws_apigatewayv2_api.producer.id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_function.producer.invoke_arn
  payload_format_version = "2.0"
}

# Callers sign their requests (SigV4) and need execute-api:Invoke. An open API would take anybody's events.
resource "aws_apigatewayv2_route" "producer" {
  for_each = toset(local.routes)

  api_id             = aws_apigatewayv2_api.producer.id
  route_key          = each.value
  target             = "integrations/${aws_apigatewayv2_integration.producer.id}"
  authorization_type = "AWS_IAM"
}

resource "aws_apigatewayv2_stage" "producer" {
  api_id      = aws_apigatewayv2_api.producer.id
  name        = "$default"
  auto_deploy = true
}

resource "aws_lambda_permission" "producer" {
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.producer.function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.producer.execution_arn}/*"
}
