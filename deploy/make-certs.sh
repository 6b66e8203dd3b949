#!/bin/sh
# Makes what trust needs, with openssl: an authority, a certificate for a receiver, and one for each host that reports.
#
#   make-certs.sh DIR RECEIVER HOST...
#
# RECEIVER is the name or the address that monitors reach the receiver by; HOST is a monitor's --host, and *.example.org
# stands for all names of one more label. What is in DIR already is kept: more hosts are added by calling this again.
# DIR/ca.key makes certificates that receivers believe: keep it off line.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 DIR RECEIVER HOST..." >&2
    exit 2
fi
dir=$1 receiver=$2
shift 2
umask 077
mkdir -p "$dir"

# quietly COMMAND...: what it says is of interest where it fails.
quietly() {
    said=$("$@" 2>&1) || {
        printf '%s\n' "$said" >&2
        exit 1
    }
}

# sign FILE EXTENSIONS: FILE.key and FILE.pem, with those extensions.
sign() {
    # Who it is for says the extension; openssl takes 64 letters of a name here, and signs mean something to it.
    subject=$(printf '%.64s' "$1" | tr -c 'A-Za-z0-9.-' _)
    quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -keyout "$dir/$1.key" -subj "/CN=$subject" -out "$dir/$1.csr"
    printf '%s\n' "$2" >"$dir/$1.ext"
    quietly openssl x509 -req -in "$dir/$1.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial \
        -days 365 -extfile "$dir/$1.ext" -out "$dir/$1.pem"
    rm "$dir/$1.csr" "$dir/$1.ext"
    echo "$dir/$1.pem $dir/$1.key"
}

if [ ! -e "$dir/ca.pem" ]; then
    quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -keyout "$dir/ca.key" -out "$dir/ca.pem" -subj "/CN=lizm authority" \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
    echo "$dir/ca.pem $dir/ca.key"
fi

if [ ! -e "$dir/receiver.pem" ]; then
    case $receiver in
    *:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) name=IP ;;
    *) name=DNS ;;
    esac
    sign receiver "subjectAltName=$name:$receiver
extendedKeyUsage=serverAuth
basicConstraints=CA:FALSE"
fi

for host; do
    # A wildcard is not a good name of a file.
    file=$(printf '%s' "$host" | sed 's/^\*\./any./')
    case $file in
    ca | receiver | */*)
        echo "$0: a host called $host would overwrite another file" >&2
        exit 1
        ;;
    esac
    if [ ! -e "$dir/$file.pem" ]; then
        sign "$file" "subjectAltName=DNS:$host
extendedKeyUsage=clientAuth
basicConstraints=CA:FALSE"
    fi
done
