variable "region" {
  description = "The AWS Region of all that is made here."
  type        = string
}

variable "name" {
  description = "How names begin. The database roles are NAME_writer, NAME_publisher and NAME_operator."
  type        = string
  default     = "shop"

  validation {
    condition     = can(regex("^[a-z][a-z0-9_]{0,30}$", var.name))
    error_message = "It becomes a part of database roles: a letter, then up to 30 of a-z 0-9 _."
  }
}

variable "people" {
  description = "ARNs of the IAM principals who may migrate (role admin) and operate (role operator)."
  type        = list(string)
}

variable "image" {
  description = "The publisher's image with its tag or digest, made by the Dockerfile and pushed to Amazon ECR."
  type        = string
}

variable "image_repository_arn" {
  description = "ARN of the ECR repository that holds the image."
  type        = string
}

variable "architecture" {
  description = "Of the function's zip and of the image: arm64 or x86_64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "It is arm64 or x86_64."
  }
}

variable "vpc_id" {
  description = "The VPC of the publishers."
  type        = string
}

variable "subnet_ids" {
  description = "Its subnets for them, in more than one zone. They need a way out to the cluster, SQS, ECR and logs."
  type        = list(string)
}

variable "assign_public_ip" {
  description = "Whether publishers get a public address: in public subnets they need one to get out."
  type        = bool
  default     = false
}

variable "publishers" {
  description = "How many publishers run on ECS; they share the work. 0 leaves it to the relay's function."
  type        = number
  default     = 2
}

variable "relay_schedule" {
  description = "How often the relay's function is called when nothing rings it."
  type        = string
  default     = "rate(1 minute)"
}

variable "relay_concurrency" {
  description = "How many invocations of the relay run at a time; others are dropped or wait for a minute."
  type        = number
  default     = 2
}

variable "producer_concurrency" {
  description = "How many environments of the function there may be: each holds a connection."
  type        = number
  default     = 50
}

variable "deletion_protection" {
  description = "Whether the cluster refuses to be deleted."
  type        = bool
  default     = true
}

variable "log_days" {
  description = "For how many days logs are kept."
  type        = number
  default     = 30
}
