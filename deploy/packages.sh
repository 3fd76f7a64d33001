#!/bin/sh
# Packs what `make man` has built: packages.sh FOLDER [VERSION]. The version is the workspace's, if no other is given.
set -eu
cd "$(dirname "$0")/.."
folder=$1
version=${2:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
mkdir -p "$folder"
rm -f "$folder"/*.deb "$folder"/*.rpm
for package in klp-coordinator klp-worker klp-farm; do
    cargo deb --locked --no-build --quiet --package "$package" --deb-version "$version-1" --output "$folder/"
done
for crate in coordinator worker cli; do
    cargo generate-rpm --package "$crate" --set-metadata "version = \"$version\"" --output "$folder/"
done
ls -l "$folder"
