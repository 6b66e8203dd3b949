#!/bin/sh
# Makes certificates with openssl: for an authority, for a receiver, and for each host that reports.
#
#   make-certs.sh DIR RECEIVER HOST...
#
# RECEIVER is the name or the address that monitors reach the receiver by. HOST is a monitor's --host; *.example.org
# stands for all names of one more label. Call it again with more hosts to add them: it keeps what is in DIR, prints what
# it made and what it kept, and exits 1 when a file in DIR is not for the name that was asked for.
# DIR/ca.key makes certificates that receivers believe: keep it off line.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 DIR RECEIVER HOST..." >&2
    exit 2
fi
dir=$1 receiver=$2 status=0
shift 2
umask 077
mkdir -p "$dir"

# quietly COMMAND...: prints what it writes where it fails.
quietly() {
    output=$("$@" 2>&1) || {
        printf '%s\n' "$output" >&2
        exit 1
    }
}

# complain SENTENCE: says why a certificate was not made, and goes on.
complain() {
    printf '%s: %s\n' "$0" "$1" >&2
    status=1
}

# has_only CHARACTERS TEXT: whether TEXT has none but these, as tr writes them.
has_only() { [ -z "$(printf '%s' "$2" | tr -d "$1")" ]; }

# alt_name HOST: the subjectAltName of a host. A name that DNS cannot have is a URI.
alt_name() {
    last=${1##*.}
    if has_only 'A-Za-z0-9._*-' "$1" && ! has_only 0-9 "$last" &&
        printf '%s' "$1" | grep -Eqx '(\*\.[^.*]+\.)?([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?'; then
        echo "DNS:$1"
    elif has_only 'A-Za-z0-9._-' "$1"; then
        echo "URI:lizm:$1"
    else
        echo "URI:lizm:$(printf '%s' "$1" | od -An -v -tx1 | tr -d '\n' | tr ' ' %)"
    fi
}

# alt_names FILE: the subjectAltName of a certificate, without spaces.
alt_names() { openssl x509 -in "$1" -noout -ext subjectAltName | tail -n 1 | tr -d ' '; }

# sign FILE EXTENSIONS: makes FILE.key and FILE.pem with these extensions, both or neither.
sign() {
    if [ -e "$dir/$1.key" ]; then
        complain "$dir/$1.key is there without its certificate, and is kept: nothing was made for $1"
        return
    fi
    # The subject is for people: openssl takes 64 characters of it, and gives signs a meaning.
    subject=$(printf '%.64s' "$1" | tr -c 'A-Za-z0-9.-' _)
    quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -keyout "$dir/.new.key" -subj "/CN=$subject" -out "$dir/.new.csr"
    printf '%s\nbasicConstraints=CA:FALSE\n' "$2" >"$dir/.new.ext"
    quietly openssl x509 -req -in "$dir/.new.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial \
        -days 365 -extfile "$dir/.new.ext" -out "$dir/.new.pem"
    rm "$dir/.new.csr" "$dir/.new.ext"
    mv "$dir/.new.key" "$dir/$1.key"
    mv "$dir/.new.pem" "$dir/$1.pem"
    echo "made $dir/$1.pem $dir/$1.key"
}

# keep FILE: says that FILE.pem stays, and whether it is still good.
keep() {
    if openssl verify -CAfile "$dir/ca.pem" "$dir/$1.pem" >/dev/null 2>&1; then
        echo "kept $dir/$1.pem"
    else
        complain "$dir/$1.pem has expired, or is not by $dir/ca.pem: remove it and $dir/$1.key to have others made"
    fi
}

if [ ! -e "$dir/ca.pem" ]; then
    quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -keyout "$dir/ca.key" -out "$dir/ca.pem" -subj "/CN=lizm authority" \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
    echo "made $dir/ca.pem $dir/ca.key"
else
    keep ca
fi

case $receiver in
*:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) kind=IP option=-checkip ;;
*) kind=DNS option=-checkhost ;;
esac
if ! has_only 'A-Za-z0-9.:_*-' "$receiver"; then
    complain "$receiver is neither a name nor an address: nothing was made for the receiver"
elif [ ! -e "$dir/receiver.pem" ]; then
    sign receiver "subjectAltName=$kind:$receiver
extendedKeyUsage=serverAuth"
elif openssl x509 -in "$dir/receiver.pem" -noout $option "$receiver" | grep -q 'does match'; then
    keep receiver
else
    complain "$dir/receiver.pem is kept, and is for $(alt_names "$dir/receiver.pem"), not for $receiver: use another DIR"
fi

for host; do
    # A wildcard is not a good name of a file.
    file=$host
    case $host in
    '*.'*)
        file=any.${host#'*.'}
        other=wildcard.${host#'*.'}
        # A host that is called so comes first.
        if [ -e "$dir/$other.pem" ] || { [ -e "$dir/$file.pem" ] && [ "$(alt_names "$dir/$file.pem")" = "DNS:$file" ]; }; then
            file=$other
        fi
        ;;
    any.*)
        other=wildcard.${host#any.}
        if [ -e "$dir/$host.pem" ] && [ "$(alt_names "$dir/$host.pem")" = "$(alt_name "*.${host#any.}")" ]; then
            if [ -e "$dir/$other.pem" ] || [ -e "$dir/$other.key" ]; then
                complain "$dir/$host.pem is kept, and is for *.${host#any.}: nothing was made for $host"
                continue
            fi
            mv "$dir/$host.pem" "$dir/$other.pem"
            mv "$dir/$host.key" "$dir/$other.key"
            echo "moved $dir/$host.pem, which is for *.${host#any.}, to $dir/$other.pem"
        fi
        ;;
    esac
    case $file in
    ca | receiver | '' | */*) complain "a host called '$host' has no file of its own: nothing was made for it" ;;
    *)
        name=$(alt_name "$host")
        if [ ! -e "$dir/$file.pem" ]; then
            sign "$file" "subjectAltName=$name
extendedKeyUsage=clientAuth"
        elif [ "$(alt_names "$dir/$file.pem")" = "$name" ]; then
            keep "$file"
        else
            complain "$dir/$file.pem is kept, and is for $(alt_names "$dir/$file.pem"), not for $host"
        fi
        ;;
    esac
done
exit $status
