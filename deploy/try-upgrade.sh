#!/bin/bash
# Tries an upgrade as RUNBOOK.md has it, with the programs of another commit and those of FOLDER, over TLS and on real kernels: an old
# coordinator with a new worker, a new one with an old worker, each replaced by its successor while an extraction runs, and
# the way back. try-upgrade.sh FOLDER; FROM=COMMIT names the former version (default: the last release, else where this branch left
# main), KLP_FARM_TREES the kernel trees. Building the former version takes minutes, once.
set -euo pipefail
cd "$(dirname "$0")/.."
new=$(cd "$1" && pwd)
trees=${KLP_FARM_TREES:?names the folder of kernel trees; make try-upgrade sets it}
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
say() { echo "== $*"; }
fail() {
    echo "error: $*" >&2
    exit 1
}

before_this() {
    git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD~1 2>/dev/null && return
    local base
    base=$(git merge-base HEAD main 2>/dev/null || true)
    if [ -n "$base" ] && [ "$base" != "$(git rev-parse HEAD)" ]; then echo "$base"; else git rev-parse HEAD~1; fi
}
from=$(git rev-parse --verify --quiet "${FROM:-$(before_this)}^{commit}") || fail "there is no commit ${FROM:-}; name another with FROM=COMMIT"
old=$target/upgrade/$from
if [ ! -x "$old/klp-farm" ]; then
    say "building $(git log -1 --format='%h (%s)' "$from")"
    source=$target/upgrade/source
    rm -rf "$source" && mkdir -p "$source" "$old"
    git archive "$from" | tar -x -C "$source"
    CARGO_TARGET_DIR=$target/upgrade/build cargo build --locked --workspace --bins --manifest-path "$source/Cargo.toml"
    cp "$target"/upgrade/build/debug/{klp-coordinator,klp-worker,klp-farm} "$old/"
    rm -rf "$source"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/klp-farm-upgrade.XXXXXX")
pids=()
stop_all() {
    status=$?
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ "$status" = 0 ]; then rm -rf "$work"; else echo "the upgrade failed; logs and data are in $work" >&2; fi
    exit "$status"
}
trap stop_all EXIT
trap 'exit 130' INT TERM

until_true() {
    local what=$1
    shift
    for _ in $(seq 300); do
        "$@" && return
        sleep 0.2
    done
    tail -n 20 "$data"/*.log >&2
    fail "waited in vain until $what"
}

# What follows is about the farm in $data, whose coordinator is at $url and process $coordinator, and its worker $worker.
new_farm() { # with the programs of a folder
    data=$work/$2
    mkdir "$data"
    "$1/klp-coordinator" --data-dir "$data/coordinator" init --name localhost --output json >"$data/init.json"
    token=$(sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' "$data/init.json")
    listen=127.0.0.1:0
    start_coordinator "$1"
    listen=${url#https://}
}
start_coordinator() {
    : >"$data/coordinator.out"
    "$1/klp-coordinator" --listen "$listen" --data-dir "$data/coordinator" >"$data/coordinator.out" 2>>"$data/coordinator.log" &
    coordinator=$!
    pids+=("$coordinator")
    until_true "the coordinator listens" grep -q "^listening on" "$data/coordinator.out"
    url=$(sed -n 's/^listening on //p' "$data/coordinator.out")
}
farm() { # with the command line of a folder
    local bin=$1
    shift
    KLP_FARM_COORDINATOR=$url KLP_FARM_CA=$data/coordinator/tls/ca.pem KLP_FARM_TOKEN=$token KLP_FARM_CONFIG=/dev/null "$bin/klp-farm" "$@"
}
enroll() {
    local line
    line=$(farm "$1" enroll w | grep klp-worker)
    PATH=$1:$PATH bash -c "$line --data-dir $data/worker"
}
start_worker() {
    "$1/klp-worker" --coordinator "$url" --data-dir "$data/worker" --trees "$trees" --codestreams "$only" --slots 1 \
        --grace 120 2>>"$data/worker.log" &
    worker=$!
    pids+=("$worker")
    until_true "the worker is connected" connected
}
stop() {
    kill -TERM "$1"
    wait "$1" || fail "a program did not end well; see $data"
}
# One of the livepatch's tasks that the expression is true of, as python has it.
has() { farm "$new" status "$1" --output json | python3 -c "import json, sys; sys.exit(not any($2 for t in json.load(sys.stdin)['tasks']))"; }
connected() { farm "$new" workers --output json | grep -q '"connected": true'; }
submit() { # with a command line, a name, and more
    local bin=$1 name=$2
    shift 2
    farm "$bin" submit --name "$name" --mod snd-pcm --conf CONFIG_SND_PCM --file-funcs sound/core/pcm.c snd_pcm_attach_substream \
        --codestreams "$only" --type native "$@"
}
succeeds() { # with the programs of its coordinator
    farm "$new" watch "$1" >"$data/$1.watched" || { cat "$data/$1.watched" "$data"/*.log >&2; fail "$1 did not succeed"; }
    farm "$new" status "$1"
    "$2/klp-coordinator" check --online --data-dir "$data/coordinator" || fail "the data are not whole"
}
extracting() { has "$1" "t['kind'] == 'extract' and t['state'] == 'running'"; }
extracted() { grep "klp.name=\"$1\".*klp.kind=extract.*outcome committed" "$data/worker.log" >/dev/null; }
schema() { od -An -tu1 -j63 -N1 "$1/farm.db" | tr -d ' '; } # user_version, but for what is beyond 255

only=$("$new/klp-worker" tree list --trees "$trees" --output json | sed -n 's/.*"codestream": *"\(debian12-6\.1\.[^"]*\)".*/\1/p' | sort -V | tail -n 1)
[ -n "$only" ] || fail "$trees holds no kernel of Debian 12; klp-worker tree add debian --latest 1 --trees $trees"
only="$(printf '%s' "$only" | sed 's/[.+]/\\&/g')\$"

say "$("$old/klp-coordinator" --version) of $(git log -1 --format=%h "$from"): old; $("$new/klp-coordinator" --version) of ${new#"$PWD/"}: new"

say "an old coordinator and a new worker, by a new command line"
new_farm "$old" late
enroll "$new"
start_worker "$new"
farm "$new" workers
submit "$new" lp --wait || fail "the livepatch did not succeed: $(tail "$data"/*.log)"
farm "$new" get lp -o "$data/livepatches"
"$old/klp-coordinator" backup --data-dir "$data/coordinator" "$data/backup" >/dev/null
before=$(schema "$data/backup")
stop "$worker"
stop "$coordinator"

say "an old farm, whose coordinator is replaced while an extraction runs"
new_farm "$old" farm
enroll "$old"
start_worker "$old"
for name in replaced-coordinator{,-2,-3,-4,-5}; do
    submit "$old" "$name"
    until_true "an extraction runs" extracting "$name"
    stop "$coordinator"
    extracted "$name" || break
    start_coordinator "$old"
    succeeds "$name" "$old"
    [ "$name" != replaced-coordinator-5 ] || fail "five extractions ended before the coordinator did"
done
replaced=$name
start_coordinator "$new"
until_true "the worker is connected again" connected
succeeds "$replaced" "$new"
! has "$replaced" "t['attempt'] != 1" || fail "something was done twice"

say "the new coordinator and the old worker, by an old command line"
farm "$new" workers
submit "$old" old-worker --wait || fail "the livepatch did not succeed: $(tail "$data"/*.log)"
farm "$old" list
farm "$old" get old-worker -o "$data/livepatches"

say "its worker is replaced while an extraction runs"
for name in replaced-worker{,-2,-3,-4,-5}; do
    submit "$new" "$name"
    until_true "an extraction runs" extracting "$name"
    stop "$worker"
    grep -q "waiting for attempts to finish running=1" "$data/worker.log" && break
    start_worker "$old"
    [ "$name" != replaced-worker-5 ] || fail "five extractions ended before the worker did"
done
start_worker "$new"
succeeds "$name" "$new"
! has "$name" "t['attempt'] != 1" || fail "something was done twice"
farm "$new" workers
farm "$new" get "$name" -o "$data/livepatches"

say "the way back"
"$new/klp-coordinator" backup --data-dir "$data/coordinator" "$data/backup" >/dev/null
after=$(schema "$data/backup")
stop "$worker"
stop "$coordinator"
refuses() { # a program, on a folder
    ! "$1/klp-coordinator" --listen 127.0.0.1:0 --data-dir "$2" >"$data/back.out" 2>"$data/back.log" || fail "it did not refuse"
    grep 'written by a newer coordinator; start that one, or restore a backup' "$data/back.log" || { cat "$data/back.log" >&2; fail "it does not say why"; }
}
if [ "$before" != "$after" ]; then
    say "the database went from schema $before to $after: the old coordinator refuses it"
    refuses "$old" "$data/coordinator"
else
    say "the database has schema $before as before: the old coordinator goes on with it"
    start_coordinator "$old"
    stop "$coordinator"
fi
say "a database of the future is refused by the new one, too"
printf '\177' | dd of="$data/backup/farm.db" bs=1 seek=63 conv=notrunc status=none
refuses "$new" "$data/backup"
start_coordinator "$new"
farm "$new" list
for name in "$replaced" old-worker "$name"; do
    farm "$new" status "$name" | grep -q succeeded || fail "$name is not there any more"
done
stop "$coordinator"
say "all is well"
