# The smallest fleet: a VPC of its own, two intakes and a summarizer, and a Redis of two shards with a replica each.

terraform {
  required_version = ">= 1.5"
}

provider "aws" {
  region = "eu-central-1"
}

variable "binary" {
  description = "The static binary, as the module takes it."
  type        = object({ url = string, sha256 = string })
}

variable "secrets" {
  description = "ARNs of the secrets, as the module takes them."
  type        = object({ token_key = string, certificate = string, key = string, authorities = string })
}

variable "summaries_certificate_arn" {
  description = "ARN of the certificate for readers."
  type        = string
}

module "lizm" {
  source = "../"

  binary                    = var.binary
  secrets                   = var.secrets
  summaries_certificate_arn = var.summaries_certificate_arn
  hosts_cidrs               = ["0.0.0.0/0"] # they need a certificate
  readers_cidrs             = ["10.0.0.0/8"]
}

output "intake_url" {
  description = "Where hosts publish."
  value       = module.lizm.intake_url
}

output "summaries_url" {
  description = "Where people and scripts read."
  value       = module.lizm.summaries_url
}
