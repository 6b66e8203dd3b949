# The store that all receivers share: Redis in cluster mode, over TLS.

resource "aws_elasticache_subnet_group" "this" {
  name       = var.name
  subnet_ids = local.machine_subnets
  tags       = local.tags
}

resource "aws_elasticache_replication_group" "this" {
  replication_group_id = var.name
  description          = "Summaries of lizm"
  engine               = "redis"
  engine_version       = "7.1"
  parameter_group_name = "default.redis7.cluster.on"
  node_type            = var.redis.node_type
  port                 = 6379

  num_node_groups            = var.redis.shards
  replicas_per_node_group    = var.redis.replicas
  automatic_failover_enabled = true # which cluster mode asks for, with replicas or without
  multi_az_enabled           = var.redis.replicas > 0

  transit_encryption_enabled = true
  at_rest_encryption_enabled = true
  security_group_ids         = [aws_security_group.this["redis"].id]
  subnet_group_name          = aws_elasticache_subnet_group.this.name
  tags                       = local.tags
}

locals {
  store = "rediss+cluster://${aws_elasticache_replication_group.this.configuration_endpoint_address}:6379"
}
