# The database, and where messages go.

locals {
  host  = "${aws_dsql_cluster.outbox.identifier}.dsql.${var.region}.on.aws"
  queue = trimprefix(aws_sqs_queue.events.url, "https://")

  # A database role by duty. Tokens are signed with the IAM role: no URL holds a secret.
  urls = {
    for duty in ["writer", "publisher", "operator"] :
    duty => "dsql://${var.name}_${duty}@${local.host}/postgres"
  }
}

resource "aws_dsql_cluster" "outbox" {
  deletion_protection_enabled = var.deletion_protection

  tags = {
    Name = var.name
  }
}

# The message group is the subject, so its order is kept; the id of a message is known for 5 minutes.
resource "aws_sqs_queue" "events" {
  name                      = "${var.name}-events.fifo"
  fifo_queue                = true
  deduplication_scope       = "messageGroup"
  fifo_throughput_limit     = "perMessageGroupId"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
}
