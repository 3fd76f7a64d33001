#!/bin/sh
# Installs with apt what building klp-farm and preparing kernel trees needs, if it is missing. Says so before.
# With --tests, also unpacks what only tests need.
set -eu

# gcc, libc6-dev: to link, and for the bundled SQLite. gcc-12: the compiler of bookworm's kernels; the other one is for the
# tests on a kernel of another architecture. libclang1-19: the native backend. iproute2: network namespaces for tests. git,
# patch: to apply fixes. The rest is what the kernel's own build asks for: without pahole its configuration changes.
packages="gcc libc6-dev make gcc-12 gcc-s390x-linux-gnu libclang1-19 bc bison flex pahole python3 libelf-dev libssl-dev xz-utils iproute2 git patch"

# chromium, chromium-driver: tests look at the dashboard in a real browser.
[ "${1:-}" = --tests ] && packages="$packages chromium chromium-driver"
# systemd, mandoc: tests ask them whether the units and the man pages are right.
[ "${1:-}" = --tests ] && packages="$packages systemd mandoc"
# npm: to fetch axe-core. Whoever has another one keeps it.
[ "${1:-}" = --tests ] && ! command -v npm >/dev/null && packages="$packages npm"

missing=""
for package in $packages; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    echo "installing with apt:$missing" >&2
    $sudo apt-get update -q >&2
    # shellcheck disable=SC2086 # a list
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends $missing >&2
elif [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -print -quit 2>/dev/null)" ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    echo "fetching apt's package lists" >&2
    $sudo apt-get update -q >&2
fi

if ! command -v cargo >/dev/null; then
    echo "error: no cargo on PATH; install Rust from https://rustup.rs" >&2
    exit 1
fi

# What follows only tests need.
[ "${1:-}" = --tests ] || exit 0
cache="${KLP_FARM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/klp-farm}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# prometheus: tests have it scrape a farm. Its package would start a server of its own, so it is not installed: its two
# programs are unpacked to where `make test` looks for them.
tools="$cache/prometheus"
if ! "$tools/promtool" --version >/dev/null 2>&1; then
    echo "unpacking prometheus from its Debian package into $tools, for the tests" >&2
    mkdir -p "$tools"
    (cd "$work" && apt-get download -q prometheus >&2 && dpkg-deb -x prometheus_*.deb unpacked)
    for program in prometheus promtool; do
        # Whole or not at all.
        cp "$work/unpacked/usr/bin/$program" "$tools/.$program"
        mv "$tools/.$program" "$tools/$program"
    done
fi

# axe-core: tests ask it whether the dashboard bars anybody. One file of an npm package.
axe="$cache/axe-core"
axe_version=4.14.1
axe_sha256=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
whole() { echo "$axe_sha256  $1" | sha256sum --check --status 2>/dev/null; }
if ! whole "$axe/axe.min.js"; then
    echo "fetching axe-core $axe_version with npm into $axe, for the tests" >&2
    mkdir -p "$axe"
    (cd "$work" && npm pack --silent "axe-core@$axe_version" >&2 && tar -xzf axe-core-*.tgz package/axe.min.js)
    if ! whole "$work/package/axe.min.js"; then
        echo "error: axe.min.js of axe-core $axe_version is not the one that was looked at: its SHA-256 is another" >&2
        exit 1
    fi
    mv "$work/package/axe.min.js" "$axe/axe.min.js"
fi

# s3s-fs: a server of S3 that keeps objects in files, for the tests of artifacts in a bucket. cargo holds what it fetches
# against the registry's checksums, and the lock file that comes with it says what that is. It is built in a folder of its
# own, beside ours: it is no dependency.
s3="$cache/s3s-fs"
s3_version=0.14.1
if [ "$("$s3/bin/s3s-fs" --version 2>/dev/null)" != "s3s-fs $s3_version" ]; then
    echo "building s3s-fs $s3_version with cargo into $s3, for the tests; this takes minutes" >&2
    cargo install --quiet --locked --force --debug --root "$s3" --target-dir "$work/s3s-fs" --features binary "s3s-fs@$s3_version" >&2
fi
