#!/bin/sh
# What lintian and rpmlint find in the packages of FOLDER: lint-packages.sh FOLDER. lintian's errors fail; of RPMs, that rpm
# can read them and that they hold what the Debian packages hold. Installs lintian, rpm and rpmlint with apt if missing.
set -eu
cd "$(dirname "$0")/.."
folder=$1

missing=""
for tool in lintian rpm rpmlint; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
if [ -n "$missing" ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing with apt:$missing" >&2
    # shellcheck disable=SC2086 # a list
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends $missing >&2
fi

# What is no Debian package's business here: there is no bug that asks for it (initial-upload-closes-no-bugs).
lintian --fail-on error --tag-display-limit 0 --suppress-tags initial-upload-closes-no-bugs "$folder"/*.deb

# What each package holds, without folders and what the distributions keep elsewhere.
plain() { grep -v '/$' | sed -E 's#^\.?/##; s#vendor-completions/|site-functions/##; s#^usr/share/doc/.*##' | sort | sed '/^$/d'; }
for deb in "$folder"/*.deb; do
    package=$(dpkg-deb --field "$deb" Package)
    rpm=$(find "$folder" -name "$package-[0-9]*.rpm")
    rpm --query --list --package "$rpm" | plain >"$folder/.rpm"
    dpkg-deb --contents "$deb" | sed -E 's/^(\S+\s+){5}//' | plain >"$folder/.deb"
    if ! diff "$folder/.deb" "$folder/.rpm" >&2; then
        echo "error: $deb and $rpm hold different files, as above" >&2
        exit 1
    fi
    echo "$rpm: $(wc -l <"$folder/.rpm") files, as the Debian package"
    rpm --query --scripts --package "$rpm" | sh -n
done
rm -f "$folder/.rpm" "$folder/.deb"
# Signatures, and what a build service writes into an RPM, come with whoever publishes it.
later='no-(signature|packager-tag|group-tag|changelogname-tag|buildhost-tag)'
rpmlint "$folder"/*.rpm >"$folder/.rpmlint" || true
if grep ': E: ' "$folder/.rpmlint" | grep -vE ": E: $later" >&2; then
    echo "error: rpmlint finds errors, as above" >&2
    exit 1
fi
tail -n 1 "$folder/.rpmlint"
rm -f "$folder/.rpmlint"
