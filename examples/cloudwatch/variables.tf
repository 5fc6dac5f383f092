variable "log_group_name" {
  description = "The log group that the writers log to."
  type        = string
}

variable "cluster_id" {
  description = "The cluster of Aurora DSQL, as in its endpoint. Without it, its own metrics have no alarms."
  type        = string
  default     = null
}

variable "name" {
  description = "The metrics' namespace, and how the names of filters and alarms begin."
  type        = string
  default     = "dsql-outbox"
}

variable "alarm_actions" {
  description = "Who is told: ARNs, such as that of an SNS topic."
  type        = list(string)
  default     = []
}
