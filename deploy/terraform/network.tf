# The VPC: yours, or one of two public subnets, in which security groups alone keep others out. Machines in it have
# public addresses, since a NAT gateway would cost more than they do.

data "aws_availability_zones" "available" {
  state = "available"
}

locals {
  makes_network    = var.network == null
  vpc_id           = local.makes_network ? aws_vpc.this[0].id : var.network.vpc_id
  balancer_subnets = local.makes_network ? aws_subnet.public[*].id : var.network.balancer_subnets
  machine_subnets  = local.makes_network ? aws_subnet.public[*].id : var.network.machine_subnets
  internal         = local.makes_network ? false : var.network.internal
  tags             = merge({ Name = var.name }, var.tags)
}

resource "aws_vpc" "this" {
  count = local.makes_network ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = local.tags
}

resource "aws_internet_gateway" "this" {
  count = local.makes_network ? 1 : 0

  vpc_id = aws_vpc.this[0].id
  tags   = local.tags
}

resource "aws_subnet" "public" {
  count = local.makes_network ? 2 : 0

  vpc_id                  = aws_vpc.this[0].id
  cidr_block              = cidrsubnet(var.vpc_cidr, 4, count.index)
  availability_zone       = data.aws_availability_zones.available.names[count.index]
  map_public_ip_on_launch = true
  tags                    = local.tags
}

resource "aws_route_table" "public" {
  count = local.makes_network ? 1 : 0

  vpc_id = aws_vpc.this[0].id
  tags   = local.tags

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this[0].id
  }
}

resource "aws_route_table_association" "public" {
  count = local.makes_network ? 2 : 0

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}
