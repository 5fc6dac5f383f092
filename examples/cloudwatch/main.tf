# CloudWatch metrics and alarms out of the log of writers that log JSON: `dsql-outbox write --log-format json`,
# or a program of yours with dsql_outbox.observability.JsonFormatter. Keys are those of docs/reference/telemetry.md.
# No metric filter costs the writer anything. Limits are a start: set your own.

locals {
  alarms = {
    # What the database refuses. Callers see nothing of it as long as the retries suffice.
    # In a storm a line stands for `count` retries.
    conflicts = {
      pattern     = "{ ($.logger = \"dsql_outbox\") && ($.message = \"Transaction conflict*\") }"
      value       = "$.count"
      statistic   = "Sum"
      percentile  = null
      threshold   = 100
      periods     = 3
      description = "Many transactions conflict: writers fight for the same entities. Spread them, or coalesce."
    }
    # Retries after the second and later failures: these writes are close to their last.
    late_retries = {
      pattern     = "{ ($.logger = \"dsql_outbox\") && ($.wait_s >= 0) && ($.attempt >= 2) }"
      value       = "1"
      statistic   = "Sum"
      percentile  = null
      threshold   = 20
      periods     = 3
      description = "Many writes need a second retry. Find the hot entity, and coalesce."
    }
    # What a conflict costs its caller. Writes without one do not wait.
    waits = {
      pattern     = "{ ($.logger = \"dsql_outbox\") && ($.wait_s >= 0) }"
      value       = "$.wait_s"
      statistic   = null
      percentile  = "p99"
      threshold   = 0.3
      periods     = 3
      description = "More than one wait in a hundred is a third one, of 400 ms: writes that conflict take long."
    }
    # What callers see: the driver's own error, and an event that is not stored.
    exhausted = {
      pattern     = "{ ($.logger = \"dsql_outbox\") && ($.level = \"ERROR\") && ($.limit >= 0) }"
      value       = "$.count"
      statistic   = "Sum"
      percentile  = null
      threshold   = 0
      periods     = 1
      description = "Writes failed as their retries ran out. Find the hot entity in a trace by the line's trace_id."
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "outbox" {
  for_each = local.alarms

  name           = "${var.name}-${each.key}"
  log_group_name = var.log_group_name
  pattern        = each.value.pattern

  metric_transformation {
    namespace = var.name
    name      = each.key
    value     = each.value.value
  }
}

resource "aws_cloudwatch_metric_alarm" "outbox" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = var.name
  metric_name         = aws_cloudwatch_log_metric_filter.outbox[each.key].metric_transformation[0].name
  statistic           = each.value.statistic
  extended_statistic  = each.value.percentile
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = 300
  evaluation_periods  = each.value.periods
  treat_missing_data  = "notBreaching" # no line is good news
  alarm_actions       = var.alarm_actions
}
