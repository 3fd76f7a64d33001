#!/bin/sh
# Runs fuzz targets one after the other, each for FUZZ_SECONDS; those named, or all. Stable Rust does: what cargo-fuzz asks
# a nightly for is the address sanitizer, and without unsafe code there is little for it to find.
set -eu
cd "$(dirname "$0")"

if ! command -v c++ >/dev/null; then
    echo "error: no C++ compiler, which libFuzzer is built with; apt-get install g++" >&2
    exit 1
fi

seconds=${FUZZ_SECONDS:-60}
out=$(cd .. && pwd)/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
# How libFuzzer sees which code an input reached, and what it was compared with.
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    RUSTFLAGS="${RUSTFLAGS-} -Cllvm-args=-sanitizer-coverage-$flag"
done
export RUSTFLAGS="$RUSTFLAGS -Cpasses=sancov-module --cfg fuzzing"

# With --target, build scripts and macros are built without those flags.
cargo build --locked --release --target "$host" --target-dir "$out"

[ $# -gt 0 ] || set -- $(cd src/bin && printf '%s\n' *.rs | sed 's/\.rs$//')
for target in "$@"; do
    corpus=$out/corpus/$target
    mkdir -p "$corpus" "$out/artifacts"
    seeds=seeds/$target
    [ -d "$seeds" ] || seeds=
    echo "== $target for $seconds s"
    log=$out/$target.log
    # A crash ends the script; its input stays in artifacts/.
    "$out/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -print_funcs=0 -verbosity=0 -artifact_prefix="$out/artifacts/$target-" \
        "$corpus" $seeds >"$log" 2>&1 || {
        tail -n 60 "$log" >&2
        exit 1
    }
    grep number_of_executed_units "$log"
done
