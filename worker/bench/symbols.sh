#!/bin/sh
# Fetches a vmlinux with debug information, once, and measures how fast symbols are found in it.
#
# usage: symbols.sh FOLDER PROGRAM TREES: FOLDER keeps the package (860 MB), what is unpacked of it (630 MB) and a Python
# environment; PROGRAM is klp-symbols-bench; TREES holds the kernel trees, of which the newest x86_64 one is taken.
set -eu
folder=$1 program=$2 trees=$3
tree=$(ls -d "$trees"/x86_64/*/ | sort -V | tail -n 1)
release=$(sed -n 's/^ *"release": "\(.*\)",$/\1/p' "$tree/tree.json")
vmlinux=$folder/vmlinux-$release
mkdir -p "$folder"
if ! [ -f "$vmlinux" ]; then
    package=linux-image-$release-dbg
    # apt checks what it fetches against the archive's signed digests.
    [ -n "$(ls "$folder/$package"_*.deb 2>/dev/null)" ] || (cd "$folder" && apt-get -q download "$package")
    dpkg-deb --fsys-tarfile "$folder/$package"_*.deb |
        tar -x --to-stdout "./usr/lib/debug/boot/vmlinux-$release" >"$vmlinux.part"
    mv "$vmlinux.part" "$vmlinux"
fi
python=python3
if ! python3 -c 'import elftools' 2>/dev/null; then
    python=$folder/python/bin/python3
    [ -x "$python" ] || python3 -m venv "$folder/python"
    "$python" -c 'import elftools' 2>/dev/null || "$python" -m pip install --quiet pyelftools
fi
exec "$program" --vmlinux "$vmlinux" --boot-image "$tree/boot/vmlinuz" --python "$python" --script "${0%.sh}.py"
