# Alarms on the metrics that Aurora DSQL itself publishes, if cluster_id is given. Names and units are those of
# https://docs.aws.amazon.com/aurora-dsql/latest/userguide/cloudwatch-monitoring.html. Limits are a start: set your own.

locals {
  cluster_alarms = {
    conflicts = {
      metric      = "OccConflicts"
      statistic   = "Sum"
      percentile  = null
      threshold   = 1000
      period      = 300
      periods     = 3
      description = "Over 1,000 transactions conflict in 5 minutes, also those of other programs. Find the hot entity."
    }
    commits = {
      metric      = "CommitLatency"
      statistic   = null
      percentile  = "p99"
      threshold   = 1000 # ms
      period      = 300
      periods     = 3
      description = "The slowest commits take over 1 s. With few conflicts it is a hot tail: raise dsql-outbox schema apply --shards."
    }
    reads = {
      metric      = "ReadOnlyTransactions"
      statistic   = "Sum"
      percentile  = null
      threshold   = 30000
      period      = 300
      periods     = 3
      description = "100 read-only transactions per second: clients that poll, or that parse each statement anew."
    }
    storage = {
      metric      = "ClusterStorageSize"
      statistic   = "Maximum"
      percentile  = null
      threshold   = 8 * 1024 * 1024 * 1024 * 1024 # bytes: 80 % of the default quota
      period      = 3600
      periods     = 1
      description = "8 of 10 TiB are used. Forget events, or ask AWS for a higher quota."
    }
    cost = {
      metric      = "TotalDPU"
      statistic   = "Sum"
      percentile  = null
      threshold   = 1000000 # $8 in us-east-1
      period      = 86400
      periods     = 1
      description = "More than 1,000,000 DPU in a day."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "cluster" {
  for_each = var.cluster_id == null ? {} : local.cluster_alarms

  alarm_name          = "${var.name}-cluster-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/AuroraDSQL"
  metric_name         = each.value.metric
  dimensions          = { ClusterId = var.cluster_id }
  statistic           = each.value.statistic
  extended_statistic  = each.value.percentile
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = each.value.period
  evaluation_periods  = each.value.periods
  treat_missing_data  = "notBreaching" # an idle cluster has no transactions
  alarm_actions       = var.alarm_actions
}
