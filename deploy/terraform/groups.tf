# Two autoscaling groups of the same machine: one of intakes, one of summarizers. A new binary, unit or image is a new
# version of their launch templates, and replaces the machines, those that are well first.

data "aws_ssm_parameter" "image" {
  name = var.image_parameter
}

locals {
  services = {
    intakes = {
      size         = var.intakes
      target_group = aws_lb_target_group.intakes.arn
      profile      = aws_iam_instance_profile.intakes.name
      options      = ["LIZM_SERVE=intake", "LIZM_NO_PLAIN=1", "LIZM_STORE=${local.store}"]
      secrets      = var.secrets
      conf         = filebase64("${path.module}/../systemd/lizm-receiver.service.d/trust.conf")
    }
    summarizers = {
      size         = var.summarizers
      target_group = aws_lb_target_group.summarizers.arn
      profile      = null
      options      = ["LIZM_SERVE=summaries", "LIZM_STORE=${local.store}"]
      secrets      = { token_key = "", certificate = "", key = "", authorities = "" }
      conf         = base64encode("# Summarizers have no keys.\n")
    }
  }
}

data "aws_region" "current" {}

resource "aws_launch_template" "this" {
  for_each = local.services

  name_prefix            = "${var.name}-${each.key}-"
  image_id               = data.aws_ssm_parameter.image.value
  instance_type          = var.instance_type
  vpc_security_group_ids = [aws_security_group.this[each.key].id]
  update_default_version = true
  tags                   = local.tags

  user_data = base64gzip(templatefile("${path.module}/cloud-init/user-data.yaml.tftpl", {
    install = filebase64("${path.module}/cloud-init/install.sh")
    unit    = filebase64("${path.module}/../systemd/lizm-receiver.service")
    conf    = each.value.conf
    options = base64encode(join("\n", concat(each.value.options, [""])))
    settings = base64encode(templatefile("${path.module}/cloud-init/settings.tftpl", {
      url         = var.binary.url
      sha256      = var.binary.sha256
      region      = data.aws_region.current.name
      token_key   = each.value.secrets.token_key
      certificate = each.value.secrets.certificate
      key         = each.value.secrets.key
      authorities = each.value.secrets.authorities
    }))
  }))

  dynamic "iam_instance_profile" {
    for_each = each.value.profile[*]

    content {
      name = iam_instance_profile.value
    }
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size = 8
      volume_type = "gp3"
      encrypted   = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = "${var.name}-${each.key}" })
  }
}

resource "aws_autoscaling_group" "this" {
  for_each = local.services

  name_prefix         = "${var.name}-${each.key}-"
  min_size            = each.value.size.min
  max_size            = each.value.size.max
  vpc_zone_identifier = local.machine_subnets
  target_group_arns   = [each.value.target_group]
  # Well is what the load balancer finds so at /health. That replaces machines in vain while Redis is gone, which costs
  # nothing that they keep; a version that does not serve is rolled back by it.
  health_check_type         = "ELB"
  health_check_grace_period = 300
  default_instance_warmup   = 300

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 200
      auto_rollback          = true
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = "${var.name}-${each.key}" })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  depends_on = [aws_iam_role_policy.secrets, aws_vpc_security_group_egress_rule.out]
}

resource "aws_autoscaling_policy" "cpu" {
  for_each = local.services

  name                   = "cpu"
  autoscaling_group_name = aws_autoscaling_group.this[each.key].name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.cpu_percent

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}

# Of a network load balancer AWS counts no requests, so that intakes are scaled by their processors alone.
resource "aws_autoscaling_policy" "requests" {
  name                   = "requests"
  autoscaling_group_name = aws_autoscaling_group.this["summarizers"].name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.requests_per_summarizer

    predefined_metric_specification {
      predefined_metric_type = "ALBRequestCountPerTarget"
      resource_label         = "${aws_lb.way_out.arn_suffix}/${aws_lb_target_group.summarizers.arn_suffix}"
    }
  }
}
