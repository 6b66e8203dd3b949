#!/bin/sh
# Makes a package of the static binary, the same bytes from the same commit and binary wherever it is made:
#
#   deploy/package.sh tarball BINARY DIR    DIR/lizm-VERSION-ARCH.tar.gz, with units, docs, man pages and completions
#   deploy/package.sh deb BINARY DIR        DIR/lizm_VERSION_ARCH.deb
#
# SHA256SUMS in DIR has the checksums of all packages there.
set -eu

kind=${1:?tarball or deb}
binary=$(realpath "${2:?a binary}")
mkdir -p "${3:?a directory}"
target=$(realpath "$3")
cd "$(dirname "$0")/.."
umask 022

version=$("$binary" --version | cut -d ' ' -f 2)
# Every file is of the time of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
machine=$(readelf -h "$binary" | sed -n 's/^ *Machine: *//p')
case $machine in
*X86-64*) arch=amd64 ;;
AArch64) arch=arm64 ;;
*) echo "package.sh: no package for a machine of $machine" >&2; exit 1 ;;
esac
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# Man pages and completions are what the binary prints, or one for this machine in LIZM.
lizm() {
    "${LIZM:-$binary}" "$@"
}

commands() {
    lizm --help | sed -n 's/^  lizm \([a-z]*\) .*/\1/p'
}

man_pages() {
    mkdir -p "$1"
    lizm man > "$1/lizm.1"
    for command in $(commands); do
        lizm man "$command" > "$1/lizm-$command.1"
    done
}

completions() {
    mkdir -p "$(dirname "$1")" "$(dirname "$2")" "$(dirname "$3")"
    lizm completions bash > "$1"
    lizm completions zsh > "$2"
    lizm completions fish > "$3"
}

# What other programs are given: nginx, Grafana and Prometheus.
examples() {
    mkdir -p "$1"
    cp -r deploy/nginx.conf deploy/grafana deploy/prometheus "$1"
    chmod -R go=u-w "$1"
}

set_times() {
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# What a tree takes, as Debian counts it, whatever the file system.
kilobytes() {
    find "$1" -printf '%y %s\n' | awk '{ sum += $1 == "f" ? int(($2 + 1023) / 1024) : 1 } END { print sum }'
}

tarball() {
    name=lizm-$version-$arch
    tree=$root/$name
    mkdir -p "$tree"
    install -m 755 "$binary" deploy/install-monitor.sh "$tree"
    cp -r deploy/systemd docs "$tree"
    examples "$tree/deploy"
    cp deploy/systemd/lizm-monitor.service README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$tree"
    rm -rf "$tree/docs/pictures"
    man_pages "$tree/man"
    completions "$tree/completions/lizm.bash" "$tree/completions/_lizm" "$tree/completions/lizm.fish"
    tar --sort=name --mode=go=u-w --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=gnu -C "$root" \
        -cf - "$name" | gzip -9n > "$target/$name.tar.gz"
    echo "$target/$name.tar.gz"
}

deb() {
    tree=$root/deb
    doc=$tree/usr/share/doc/lizm
    units=$tree/lib/systemd/system
    mkdir -p "$tree/DEBIAN" "$tree/etc/lizm" "$doc" "$units"
    install -D -m 755 "$binary" "$tree/usr/bin/lizm"
    for service in receiver monitor; do
        sed 's|/usr/local/bin/|/usr/bin/|' "deploy/systemd/lizm-$service.service" > "$units/lizm-$service.service"
    done
    printf '%s\n' "# Options of lizm receiver, one a line; 'lizm receiver --help' explains them." \
        '#LIZM_BIND=127.0.0.1' > "$tree/etc/lizm/receiver.env"
    printf '%s\n' "# Options of lizm monitor, one a line; 'lizm monitor --help' explains them. This one is needed." \
        '#LIZM_PUBLISH=http://receiver:8080' > "$tree/etc/lizm/monitor.env"
    # Tokens and passwords may come to stand here.
    chmod 600 "$tree"/etc/lizm/*.env
    man_pages "$tree/usr/share/man/man1"
    gzip -9n "$tree"/usr/share/man/man1/*.1
    completions "$tree/usr/share/bash-completion/completions/lizm" "$tree/usr/share/zsh/vendor-completions/_lizm" \
        "$tree/usr/share/fish/vendor_completions.d/lizm.fish"
    install -m 644 docs/*.md README.md "$doc"
    examples "$doc/examples"
    {
        printf '%s\n' 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/' \
            'Upstream-Name: lizm' '' 'Files: *' 'Copyright: 2026 The lizm authors' 'License: MIT or Apache-2.0' '' \
            'License: MIT'
        sed -e '1,2d' -e 's/^$/./' -e 's/^/ /' LICENSE-MIT
        printf '%s\n' '' 'License: Apache-2.0' ' See /usr/share/common-licenses/Apache-2.0.'
    } > "$doc/copyright"
    date=$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
    printf 'lizm (%s) unstable; urgency=medium\n\n  * See CHANGELOG.gz.\n\n -- The lizm authors <lizm@localhost>  %s\n' \
        "$version" "$date" | gzip -9n > "$doc/changelog.gz"
    gzip -9nc CHANGELOG.md > "$doc/CHANGELOG.gz"
    install -D -m 644 deploy/debian/lintian-overrides "$tree/usr/share/lintian/overrides/lizm"
    printf '/etc/lizm/%s.env\n' receiver monitor > "$tree/DEBIAN/conffiles"
    install -m 755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$tree/DEBIAN"
    printf '%s\n' 'Package: lizm' "Version: $version" "Architecture: $arch" 'Section: admin' 'Priority: optional' \
        'Maintainer: The lizm authors <lizm@localhost>' "Installed-Size: $(kilobytes "$tree")" \
        'Recommends: ca-certificates' 'Description: host metrics without a monitoring stack' \
        ' One binary that reads a host every second, publishes what it has read, keeps' \
        ' averages of many hosts, serves them as a page and as JSON, and tells of alerts.' > "$tree/DEBIAN/control"
    set_times "$tree"
    # More threads write other bytes.
    dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$tree" "$target/lizm_${version}_$arch.deb" > /dev/null
    echo "$target/lizm_${version}_$arch.deb"
}

case $kind in
tarball | deb) "$kind" ;;
*) echo "package.sh: $kind is neither tarball nor deb" >&2; exit 2 ;;
esac
(cd "$target" && find . -maxdepth 1 -name 'lizm*' -type f -printf '%f\n' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS)
