#!/bin/bash
# The main job on this machine: a coordinator and two workers, each with another kernel, make a livepatch for
# CVE-2022-1048. Stops what it started. Needs the release binaries; `make demo` builds them.
set -euo pipefail

bin=${1:-target/release}
cache=${KLP_FARM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/klp-farm}
trees=$cache/trees
work=$(mktemp -d "${TMPDIR:-/tmp}/klp-farm-demo.XXXXXX")
out=$cache/demo
pids=()

stop() {
    status=$?
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ "$status" = 0 ]; then
        rm -rf "$work"
    else
        echo "demo failed; its logs are in $work" >&2
    fi
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

echo "== kernel trees (kept in $trees)"
"$bin/klp-worker" tree add debian --latest 2 --trees "$trees"
mapfile -t codestreams < <("$bin/klp-worker" tree list --trees "$trees" --output json |
    sed -n 's/.*"codestream": *"\(debian12-6\.1\.[^"]*\)".*/\1/p' | sort -V | tail -2)

if [ "${#codestreams[@]}" != 2 ]; then
    echo "error: apt offers fewer than two versions of linux-source-6.1, so there are no two codestreams to show" >&2
    exit 1
fi

echo "== a coordinator and two workers on loopback"
"$bin/klp-coordinator" --insecure --listen 127.0.0.1:0 --data-dir "$work/coordinator" >"$work/coordinator.out" 2>"$work/coordinator.log" &
pids+=($!)
for _ in $(seq 100); do
    url=$(sed -n 's/^listening on //p' "$work/coordinator.out")
    [ -n "$url" ] && break
    sleep 0.1
done
[ -n "$url" ] || { cat "$work/coordinator.log" >&2; exit 1; }
for i in 0 1; do
    # The codestream's dots and plus signs mean themselves.
    only=$(printf '%s' "${codestreams[$i]}" | sed 's/[.+]/\\&/g')
    "$bin/klp-worker" --coordinator "$url" --data-dir "$work/worker-$i" --trees "$trees" --slots 1 \
        --name "worker-$i" --codestreams "$only\$" 2>"$work/worker-$i.log" &
    pids+=($!)
done
export KLP_FARM_COORDINATOR=$url
connected=0
for _ in $(seq 100); do
    connected=$("$bin/klp-farm" workers --output json | grep -c '"connected": true' || true)
    [ "$connected" = 2 ] && break
    sleep 0.1
done
[ "$connected" = 2 ] || { cat "$work"/worker-*.log >&2; exit 1; }
"$bin/klp-farm" workers

echo
echo "== submit"
set -x
"$bin/klp-farm" submit --name bsc1197597 --cve 2022-1048 --mod snd-pcm --conf CONFIG_SND_PCM \
    --file-funcs sound/core/pcm.c snd_pcm_attach_substream snd_pcm_detach_substream \
    --codestreams debian12-6.1 --archs x86_64 --wait
{ set +x; } 2>/dev/null

echo
echo "== sources"
rm -rf "$out"
"$bin/klp-farm" get bsc1197597 -o "$out"
