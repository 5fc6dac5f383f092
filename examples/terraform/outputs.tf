output "admin_url" {
  description = "For `schema apply` and `schema grant`, with the IAM role \"admin\"."
  value       = "dsql://admin@${local.host}/postgres"
}

output "operator_url" {
  description = "For `status`, `messages` and `topics`, with the IAM role \"operator\"."
  value       = local.urls["operator"]
}

output "admin_role" {
  description = "The IAM role to take for migrations."
  value       = aws_iam_role.admin.arn
}

output "operator_role" {
  description = "The IAM role to take for operating."
  value       = aws_iam_role.operator.arn
}

output "mapping" {
  description = "SQL for the cluster's owner: the database roles, and who may connect as them."
  value = join("\n", flatten([
    [
      for duty, role in {
        writer    = aws_iam_role.writer.arn
        publisher = aws_iam_role.publisher.arn
        operator  = aws_iam_role.operator.arn
      } :
      [
        "CREATE ROLE \"${var.name}_${duty}\" WITH LOGIN;",
        "AWS IAM GRANT \"${var.name}_${duty}\" TO '${role}';",
      ]
    ],
    # The function does a publisher's duty, with an IAM role of its own.
    "AWS IAM GRANT \"${var.name}_publisher\" TO '${aws_iam_role.relay.arn}';",
  ]))
}

output "events_url" {
  description = "Where events are posted, by signed requests."
  value       = "${aws_apigatewayv2_api.producer.api_endpoint}/api/v1/events"
}

output "queue_url" {
  description = "Where messages arrive."
  value       = aws_sqs_queue.events.url
}

output "relay_failures_url" {
  description = "The queue of invocations of the relay that failed; each is a reason to look at its log."
  value       = aws_sqs_queue.relay_failures.url
}

output "log_groups" {
  description = "For examples/cloudwatch."
  value = [
    aws_cloudwatch_log_group.producer.name,
    aws_cloudwatch_log_group.publisher.name,
    aws_cloudwatch_log_group.relay.name,
  ]
}
