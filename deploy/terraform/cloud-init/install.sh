#!/bin/sh
# Makes a receiver of this machine: fetches the binary and checks it, fetches the keys that /etc/lizm/settings names, and
# starts the unit. It can be run again: what is there is replaced.
set -eu
umask 077

settings=/etc/lizm/settings
# shellcheck source=/dev/null
. "$settings"
export AWS_DEFAULT_REGION

# secret ARN FILE: the text of a secret, where one is named.
secret() {
    if [ -n "$1" ]; then
        aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text >"$2.new"
        mv "$2.new" "$2"
    fi
}

binary=$(mktemp)
trap 'rm -f "$binary"' EXIT
curl --fail --silent --show-error --location --proto =https --retry 5 --retry-connrefused --max-time 300 \
    --output "$binary" "$BINARY_URL"
echo "$BINARY_SHA256  $binary" | sha256sum --check --quiet
install -m 0755 "$binary" /usr/local/bin/lizm

secret "$TOKEN_KEY" /etc/lizm/token.key
secret "$CERTIFICATE" /etc/lizm/receiver.pem
secret "$KEY" /etc/lizm/receiver.key
secret "$AUTHORITIES" /etc/lizm/ca.pem

systemctl daemon-reload
systemctl enable lizm-receiver.service
systemctl restart lizm-receiver.service
