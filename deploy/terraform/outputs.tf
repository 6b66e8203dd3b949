output "intake_url" {
  description = "Where hosts publish. The intakes' certificate needs this name, or one of yours that leads here."
  value       = "https://${aws_lb.way_in.dns_name}"
}

output "summaries_url" {
  description = "Where people and scripts read, by the name of the certificate that leads here."
  value       = "https://${aws_lb.way_out.dns_name}"
}

output "zone_ids" {
  description = "Zones of the two addresses, for alias records in Route 53."
  value       = { intake = aws_lb.way_in.zone_id, summaries = aws_lb.way_out.zone_id }
}

output "redis_address" {
  description = "The store's configuration endpoint, inside of the VPC."
  value       = aws_elasticache_replication_group.this.configuration_endpoint_address
}

output "vpc_id" {
  description = "The VPC that all of it is in."
  value       = local.vpc_id
}
