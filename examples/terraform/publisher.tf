# The publishers on ECS and Fargate. No load balancer: nobody calls them.

locals {
  publisher = {
    name      = "publisher"
    image     = var.image
    essential = true
    command   = ["publish", "--listen", "127.0.0.1:9464", "--drain", "20", "--log-format", "json"]
    # Longer than --drain, and what is left to close and to send after it.
    stopTimeout = 45

    environment = [
      { name = "DSQL_OUTBOX_DATABASE", value = local.urls["publisher"] },
      { name = "DSQL_OUTBOX_SINK", value = "sqs://${local.queue}" },
    ]

    # The image has no curl.
    healthCheck = {
      command = [
        "CMD", "/app/.venv/bin/python", "-c",
        "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/healthz', timeout=2)",
      ]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 60
    }

    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"] } }

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.publisher.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "publisher"
      }
    }
  }
}

resource "aws_cloudwatch_log_group" "publisher" {
  name              = "/ecs/${var.name}-publisher"
  retention_in_days = var.log_days
}

# What ECS itself needs to start the task; the publisher never has it.
resource "aws_iam_role" "start" {
  name               = "${var.name}-outbox-publisher-start"
  assume_role_policy = data.aws_iam_policy_document.ecs.json
}

data "aws_iam_policy_document" "start" {
  statement {
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"] # this action knows no resource
  }
  statement {
    actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [var.image_repository_arn]
  }
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.publisher.arn}:*"]
  }
}

resource "aws_iam_role_policy" "start" {
  name   = "start"
  role   = aws_iam_role.start.name
  policy = data.aws_iam_policy_document.start.json
}

resource "aws_ecs_cluster" "outbox" {
  name = "${var.name}-outbox"
}

resource "aws_security_group" "publisher" {
  name        = "${var.name}-publisher"
  description = "Nothing in; out to the database and to AWS"
  vpc_id      = var.vpc_id

  dynamic "egress" {
    for_each = [5432, 443]
    content {
      protocol         = "tcp"
      from_port        = egress.value
      to_port          = egress.value
      cidr_blocks      = ["0.0.0.0/0"]
      ipv6_cidr_blocks = ["::/0"]
    }
  }
}

resource "aws_ecs_task_definition" "publisher" {
  family                   = "${var.name}-publisher"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  task_role_arn            = aws_iam_role.publisher.arn
  execution_role_arn       = aws_iam_role.start.arn
  container_definitions    = jsonencode([local.publisher])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = upper(var.architecture)
  }
}

resource "aws_ecs_service" "publisher" {
  name            = "publisher"
  cluster         = aws_ecs_cluster.outbox.id
  task_definition = aws_ecs_task_definition.publisher.arn
  desired_count   = var.publishers
  launch_type     = "FARGATE"

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.publisher.id]
    assign_public_ip = var.assign_public_ip
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  depends_on = [
    aws_iam_role_policy.start,
    aws_iam_role_policy.publisher_connect,
    aws_iam_role_policy.publisher_send,
  ]
}
