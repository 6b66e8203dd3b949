# Who may talk to whom: hosts to the way in, readers to the way out, each of these to its machines, and those to Redis.

locals {
  # Who is let in where: each security group, its port, and the groups and networks that may come.
  entrances = {
    way_in      = { port = 443, cidrs = var.hosts_cidrs, from = [] }
    way_out     = { port = 443, cidrs = var.readers_cidrs, from = [] }
    intakes     = { port = 8443, cidrs = [], from = ["way_in"] }
    summarizers = { port = 8080, cidrs = [], from = ["way_out"] }
    redis       = { port = 6379, cidrs = [], from = ["intakes", "summarizers"] }
  }
  by_cidr = merge([for name, entrance in local.entrances : {
    for cidr in entrance.cidrs : "${name} ${cidr}" => { group = name, port = entrance.port, cidr = cidr }
  }]...)
  by_group = merge([for name, entrance in local.entrances : {
    for from in entrance.from : "${name} ${from}" => { group = name, port = entrance.port, from = from }
  }]...)
  # Machines fetch packages, the binary and secrets; these are where plain HTTP and HTTPS lead.
  ways_out = { for way in setproduct(["intakes", "summarizers"], [80, 443]) : "${way[0]} ${way[1]}" => { group = way[0], port = way[1] } }
}

resource "aws_security_group" "this" {
  for_each = local.entrances

  name        = "${var.name}-${replace(each.key, "_", "-")}"
  description = "lizm: ${replace(each.key, "_", " ")}"
  vpc_id      = local.vpc_id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "by_cidr" {
  for_each = local.by_cidr

  security_group_id = aws_security_group.this[each.value.group].id
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.cidr
}

resource "aws_vpc_security_group_ingress_rule" "by_group" {
  for_each = local.by_group

  security_group_id            = aws_security_group.this[each.value.group].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = aws_security_group.this[each.value.from].id
}

# What may come in at one end may go out at the other.
resource "aws_vpc_security_group_egress_rule" "by_group" {
  for_each = local.by_group

  security_group_id            = aws_security_group.this[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = aws_security_group.this[each.value.group].id
}

resource "aws_vpc_security_group_egress_rule" "out" {
  for_each = local.ways_out

  security_group_id = aws_security_group.this[each.value.group].id
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = "0.0.0.0/0"
}

# Intakes alone have secrets, and of these theirs.
data "aws_iam_policy_document" "machines" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "secrets" {
  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = values(var.secrets)
  }
}

resource "aws_iam_role" "intakes" {
  name_prefix        = "${var.name}-intakes-"
  assume_role_policy = data.aws_iam_policy_document.machines.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "secrets" {
  name   = "secrets"
  role   = aws_iam_role.intakes.id
  policy = data.aws_iam_policy_document.secrets.json
}

resource "aws_iam_instance_profile" "intakes" {
  name_prefix = "${var.name}-intakes-"
  role        = aws_iam_role.intakes.name
  tags        = local.tags
}
