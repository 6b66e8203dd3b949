# The way in passes TLS through to the intakes, which ask for hosts' certificates themselves; the way out ends it.

resource "aws_lb" "way_in" {
  name               = "${var.name}-in"
  load_balancer_type = "network"
  internal           = local.internal
  subnets            = local.balancer_subnets
  security_groups    = [aws_security_group.this["way_in"].id]
  tags               = local.tags

  enable_cross_zone_load_balancing = true
}

resource "aws_lb_target_group" "intakes" {
  name_prefix          = "lizm-"
  port                 = 8443
  protocol             = "TCP"
  vpc_id               = local.vpc_id
  deregistration_delay = 30
  # The intakes see their load balancer, whose security group is the one that they let in.
  preserve_client_ip = false
  tags               = local.tags

  health_check {
    protocol            = "HTTPS"
    path                = "/health"
    matcher             = "200"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_listener" "way_in" {
  load_balancer_arn = aws_lb.way_in.arn
  port              = 443
  protocol          = "TCP"
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.intakes.arn
  }
}

resource "aws_lb" "way_out" {
  name                       = "${var.name}-out"
  load_balancer_type         = "application"
  internal                   = local.internal
  subnets                    = local.balancer_subnets
  security_groups            = [aws_security_group.this["way_out"].id]
  drop_invalid_header_fields = true
  tags                       = local.tags
}

resource "aws_lb_target_group" "summarizers" {
  name_prefix          = "lizm-"
  port                 = 8080
  protocol             = "HTTP"
  vpc_id               = local.vpc_id
  deregistration_delay = 30
  tags                 = local.tags

  health_check {
    path                = "/health"
    matcher             = "200"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_lb_listener" "way_out" {
  load_balancer_arn = aws_lb.way_out.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.summaries_certificate_arn
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.summarizers.arn
  }
}
