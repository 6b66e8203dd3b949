# The settings of a fleet. The example has the smallest set.

variable "name" {
  description = "Name of everything that is made, and the beginning of their names where there are several."
  type        = string
  default     = "lizm"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,14}[a-z0-9]$", var.name))
    error_message = "The name must be 2 to 16 lower-case letters, digits and hyphens, as names of load balancers are short."
  }
}

variable "tags" {
  description = "Tags of everything that is made."
  type        = map(string)
  default     = {}
}

variable "binary" {
  description = "The static binary: an https URL that the machines can fetch, and its SHA-256 in hexadecimal, as `make release-check` writes it. Another one is rolled out, machine by machine."
  type = object({
    url    = string
    sha256 = string
  })

  validation {
    condition     = can(regex("^https://[^[:space:]'\"$`\\\\]+$", var.binary.url))
    error_message = "The URL must begin with https:// and have neither spaces nor quotes."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.binary.sha256))
    error_message = "The SHA-256 must be 64 hexadecimal digits, in lower case."
  }
}

variable "secrets" {
  description = "ARNs of secrets in Secrets Manager, each plain text: the key of tokens (`openssl rand -hex 32`), the intakes' certificate and its key, and the authorities of the hosts' certificates, as PEM."
  type = object({
    token_key   = string
    certificate = string
    key         = string
    authorities = string
  })

  validation {
    condition     = alltrue([for arn in values(var.secrets) : can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+$", arn))])
    error_message = "Each must be the ARN of a secret, such as arn:aws:secretsmanager:eu-central-1:123456789012:secret:lizm-token-key-AbCdEf."
  }
}

variable "summaries_certificate_arn" {
  description = "ARN of the certificate, in Certificate Manager, of the name that people and scripts read at."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:", var.summaries_certificate_arn))
    error_message = "It must be the ARN of a certificate in Certificate Manager."
  }
}

variable "hosts_cidrs" {
  description = "Networks of the hosts that report. They need a certificate besides."
  type        = list(string)

  validation {
    condition     = length(var.hosts_cidrs) > 0 && alltrue([for cidr in var.hosts_cidrs : can(cidrhost(cidr, 0))])
    error_message = "At least one network is needed, each such as 10.0.0.0/8."
  }
}

variable "readers_cidrs" {
  description = "Networks of those who may read the summaries. Nothing else stands before reading."
  type        = list(string)

  validation {
    condition     = length(var.readers_cidrs) > 0 && alltrue([for cidr in var.readers_cidrs : can(cidrhost(cidr, 0))])
    error_message = "At least one network is needed, each such as 10.0.0.0/8."
  }
}

variable "network" {
  description = "Your VPC: its id; the subnets of the load balancers; those of the machines, with a way out to AWS and Debian; and whether the load balancers face the Internet. Without it a VPC is made."
  type = object({
    vpc_id           = string
    balancer_subnets = list(string)
    machine_subnets  = list(string)
    internal         = bool
  })
  default = null

  validation {
    condition     = var.network == null ? true : length(var.network.balancer_subnets) >= 2 && length(var.network.machine_subnets) >= 2
    error_message = "Two subnets of each kind are needed, in two availability zones."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the VPC that is made where `network` is not given; two subnets are cut from it."
  type        = string
  default     = "10.83.0.0/20"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 4, 1))
    error_message = "It must be a network with room for sixteen subnets, such as 10.83.0.0/20."
  }
}

variable "instance_type" {
  description = "Type of the machines, of the architecture that the binary is for."
  type        = string
  default     = "t3.micro"
}

variable "image_parameter" {
  description = "Public parameter of Systems Manager that names the image: Debian's, of the architecture that the binary is for."
  type        = string
  default     = "/aws/service/debian/release/12/latest/amd64"
}

variable "intakes" {
  description = "Fewest and most intakes."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 8 }

  validation {
    condition     = var.intakes.min >= 1 && var.intakes.max >= var.intakes.min && floor(var.intakes.min) == var.intakes.min
    error_message = "At least one, and no fewer at most than at least."
  }
}

variable "summarizers" {
  description = "Fewest and most summarizers."
  type        = object({ min = number, max = number })
  default     = { min = 1, max = 4 }

  validation {
    condition     = var.summarizers.min >= 1 && var.summarizers.max >= var.summarizers.min && floor(var.summarizers.min) == var.summarizers.min
    error_message = "At least one, and no fewer at most than at least."
  }
}

variable "cpu_percent" {
  description = "Load of their processors that both groups are scaled to, in percent."
  type        = number
  default     = 50

  validation {
    condition     = var.cpu_percent >= 10 && var.cpu_percent <= 90
    error_message = "It must be from 10 to 90."
  }
}

variable "requests_per_summarizer" {
  description = "Requests a minute of each summarizer that their group is scaled to."
  type        = number
  default     = 6000

  validation {
    condition     = var.requests_per_summarizer >= 1
    error_message = "It must be at least 1."
  }
}

variable "redis" {
  description = "The store: type of its nodes, shards, and replicas of each. Without a replica a shard that is lost takes its hosts' summaries with it."
  type        = object({ node_type = string, shards = number, replicas = number })
  default     = { node_type = "cache.t4g.micro", shards = 2, replicas = 1 }

  validation {
    condition     = var.redis.shards >= 1 && var.redis.shards <= 90 && var.redis.replicas >= 0 && var.redis.replicas <= 5
    error_message = "1 to 90 shards, with up to 5 replicas each."
  }
}
