# One IAM role a duty. dsql:DbConnect lets it connect; as which database role, the mapping in the
# database says (output "mapping"). Only "admin" has dsql:DbConnectAdmin.

data "aws_iam_policy_document" "connect" {
  statement {
    actions   = ["dsql:DbConnect"]
    resources = [aws_dsql_cluster.outbox.arn]
  }
}

data "aws_iam_policy_document" "connect_as_admin" {
  statement {
    actions   = ["dsql:DbConnectAdmin"]
    resources = [aws_dsql_cluster.outbox.arn]
  }
}

data "aws_iam_policy_document" "send" {
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.events.arn]
  }
}

data "aws_iam_policy_document" "people" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.people
    }
  }
}

data "aws_iam_policy_document" "lambda" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "scheduler" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "ecs" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

# Migrates and grants; a person takes it for that.
resource "aws_iam_role" "admin" {
  name               = "${var.name}-outbox-admin"
  assume_role_policy = data.aws_iam_policy_document.people.json
}

resource "aws_iam_role_policy" "admin_connect" {
  name   = "connect-as-admin"
  role   = aws_iam_role.admin.name
  policy = data.aws_iam_policy_document.connect_as_admin.json
}

# Runs `status`, looks after dead letters and replays.
resource "aws_iam_role" "operator" {
  name               = "${var.name}-outbox-operator"
  assume_role_policy = data.aws_iam_policy_document.people.json
}

resource "aws_iam_role_policy" "operator_connect" {
  name   = "connect"
  role   = aws_iam_role.operator.name
  policy = data.aws_iam_policy_document.connect.json
}

resource "aws_iam_role" "writer" {
  name               = "${var.name}-outbox-writer"
  assume_role_policy = data.aws_iam_policy_document.lambda.json
}

resource "aws_iam_role_policy" "writer_connect" {
  name   = "connect"
  role   = aws_iam_role.writer.name
  policy = data.aws_iam_policy_document.connect.json
}

resource "aws_iam_role" "publisher" {
  name               = "${var.name}-outbox-publisher"
  assume_role_policy = data.aws_iam_policy_document.ecs.json
}

resource "aws_iam_role_policy" "publisher_connect" {
  name   = "connect"
  role   = aws_iam_role.publisher.name
  policy = data.aws_iam_policy_document.connect.json
}

resource "aws_iam_role_policy" "publisher_send" {
  name   = "send"
  role   = aws_iam_role.publisher.name
  policy = data.aws_iam_policy_document.send.json
}
