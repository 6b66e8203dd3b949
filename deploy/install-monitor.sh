#!/bin/sh
# Installs lizm's monitor as a service of systemd that publishes this machine to a receiver. Run again, it upgrades.
#
#   sudo ./install-monitor.sh URL [TOKEN | --join TOKEN]    such as http://receiver:8080
#   sudo ./install-monitor.sh --remove
#
# A TOKEN of - is read from standard input. That of --join is one of 'lizm token --join', for which the receiver gives this
# machine one of its own.
#
# It needs the binary `lizm` and the unit `lizm-monitor.service` beside it, or in the places of this repository. In the
# environment LIZM_BINARY names another binary, LIZM_HOST another name than the system's, LIZM_TAG its tags, such as
# role=web,site=ams, and LIZM_PROBES what to measure.
# Other options are lines in /etc/lizm/monitor.env, which stay as they are.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
bin=/usr/local/bin/lizm
unit=/etc/systemd/system/lizm-monitor.service
conf=/etc/lizm/monitor.env
token_file=/etc/lizm/monitor.token
token_conf=$unit.d/token.conf

fail() {
    echo "install-monitor.sh: $1" >&2
    exit "${2:-1}"
}

# Where systemd does not run, as in an image that is built, the service starts with the machine.
runs_systemd() {
    [ -d /run/systemd/system ]
}

# Prints the first file that there is.
first_of() {
    for file in "$@"; do
        if [ -f "$file" ]; then
            echo "$file"
            return
        fi
    done
}

# Sets a variable in the configuration, and leaves the others alone. systemd takes what stands between the quotes.
set_variable() {
    case $2 in
    *[\"\\]* | *"
"*) fail "$1: has a quote, a backslash or a line break" 2 ;;
    esac
    grep -v "^$1=" "$conf" > "$conf.new" || true
    printf '%s="%s"\n' "$1" "$2" >> "$conf.new"
    mv "$conf.new" "$conf"
}

remove() {
    if runs_systemd; then
        systemctl disable --now lizm-monitor.service 2> /dev/null || true
    else
        systemctl disable lizm-monitor.service 2> /dev/null || true
    fi
    rm -rf "$unit" "$unit.d" "$conf" "$token_file" /var/lib/lizm-monitor /var/lib/private/lizm-monitor
    rmdir /etc/lizm 2> /dev/null || true
    # A receiver of this machine needs the binary.
    [ -e /etc/systemd/system/lizm-receiver.service ] || rm -f "$bin"
    if runs_systemd; then
        systemctl daemon-reload
    fi
    echo "The monitor is removed."
}

install_monitor() {
    url=$1
    token=$2
    variable=$3
    case $url in
    http://?* | https://?* | udp://?* | zmq://?*) ;;
    *) fail "URL: \"$url\" is not one such as http://receiver:8080" 2 ;;
    esac
    binary=${LIZM_BINARY:-$(first_of "$here/lizm" "$here/../target/$(uname -m)-unknown-linux-gnu/dist/lizm" \
        "$here/../target/release/lizm" "$bin")}
    [ -n "$binary" ] || fail "there is no lizm beside this script; LIZM_BINARY names one"
    source=$(first_of "$here/lizm-monitor.service" "$here/systemd/lizm-monitor.service")
    [ -n "$source" ] || fail "there is no lizm-monitor.service beside this script"
    "$binary" --version > /dev/null || fail "$binary does not run on this machine"
    if [ "$token" = - ]; then
        IFS= read -r token || [ -n "$token" ] || fail "TOKEN: standard input has none" 2
    fi

    # The new binary takes the place of the old one at once, while the old one runs.
    if [ "$binary" != "$bin" ]; then
        install -D -m 755 "$binary" "$bin.new"
        mv "$bin.new" "$bin"
    fi
    install -D -m 644 "$source" "$unit"
    umask 077
    mkdir -p /etc/lizm
    touch "$conf"
    set_variable LIZM_PUBLISH "$url"
    [ -z "${LIZM_HOST:-}" ] || set_variable LIZM_HOST "$LIZM_HOST"
    [ -z "${LIZM_TAG:-}" ] || set_variable LIZM_TAG "$LIZM_TAG"
    [ -z "${LIZM_PROBES:-}" ] || set_variable LIZM_PROBES "$LIZM_PROBES"
    if [ -n "$token" ]; then
        printf '%s\n' "$token" > "$token_file.new"
        mv "$token_file.new" "$token_file"
        # The file stays root's; the service is given a copy.
        mkdir -p "$unit.d"
        chmod 755 "$unit.d"
        printf '[Service]\nLoadCredential=monitor.token:%s\nEnvironment=%s=%%d/monitor.token\n' \
            "$token_file" "$variable" > "$token_conf"
        chmod 644 "$token_conf"
    fi

    if ! runs_systemd; then
        systemctl enable lizm-monitor.service 2> /dev/null
        echo "The monitor is installed, and starts with the machine."
        return
    fi
    systemctl daemon-reload
    systemctl enable --quiet lizm-monitor.service
    # It is started when the host has been read.
    if ! systemctl restart lizm-monitor.service; then
        journalctl --no-pager -n 5 -u lizm-monitor.service >&2 || true
        fail "the monitor does not start"
    fi
    echo "$("$bin" --version) publishes this machine to $url; see 'journalctl -u lizm-monitor'."
}

case "${1:-}" in
-h | --help | '')
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    [ -n "${1:-}" ] || exit 2
    exit 0
    ;;
esac
[ "$(id -u)" = 0 ] || fail "must be run as root, as by sudo"
case $1 in
--remove)
    [ $# = 1 ] || fail "--remove takes nothing else" 2
    remove
    ;;
-*) fail "option $1: not known; --help says what is" 2 ;;
*)
    variable=LIZM_TOKEN_FILE
    if [ "${2:-}" = --join ]; then
        [ $# -ge 3 ] || fail "--join: the token is missing" 2
        variable=LIZM_JOIN_FILE
        url=$1
        shift 2
        set -- "$url" "$@"
    fi
    [ $# -le 2 ] || fail "takes a URL and a token, and $3 is one more" 2
    install_monitor "$1" "${2:-}" "$variable"
    ;;
esac
