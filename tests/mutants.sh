#!/bin/sh
# One mutant for each guard that a promise rests on: removes it from a copy of the sources and shows which tests notice.
# Usage: tests/mutants.sh [WORD]   only the mutants whose name contains WORD
# Environment: KLP_SIM_SEEDS (default 400), CARGO_TARGET_DIR (default target/mutants; kept, so that a second run is quick).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
only=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/mutants}"
export KLP_SIM_SEEDS="${KLP_SIM_SEEDS:-400}" RUST_BACKTRACE=0
survivors=0

# With new times (-m), so that cargo does not take a mutant for built from these that a former run left in the target folder.
tar -C "$root" --exclude=./target --exclude=./.git -cf - . | tar -C "$work" -xmf -

# run ARGS: runs tests on the mutant.
run() {
    (cd "$work" && timeout 900 cargo test --quiet --locked "$@") >"$work/log" 2>&1
}

# The coordinator's unit tests and the simulation. What only makes recovery slower shows over the wire.
coordinator_tests() {
    run -p klp-coordinator --lib &&
        run --no-fail-fast -p klp-coordinator --test control --test faults --test main_path
}

network_tests() {
    run -p klp-tests --test turmoil promises
}

# mutant NAME FILE PERL: of the coordinator, for its own tests.
mutant() {
    judge "$1" "coordinator/src/$2" "$3" coordinator_tests
}

# over_the_network NAME FILE PERL: of any crate, for the farm on a simulated network.
over_the_network() {
    judge "$1" "$2" "$3" network_tests
}

# judge NAME FILE PERL TESTS: applies a Perl substitution over the whole file, runs the tests and prints those that fail.
judge() {
    case "$1" in *"$only"*) ;; *) return 0 ;; esac
    file="$work/$2"
    cp -p "$file" "$work/original"
    perl -0pi -e "$3" "$file"
    if cmp -s "$file" "$work/original"; then
        echo "mutant \`$1\` changes nothing in $2: adapt its pattern in tests/mutants.sh" >&2
        exit 2
    fi
    status=0
    "$4" || status=$?
    if grep -q '^error' "$work/log" && ! grep -q '^test result' "$work/log"; then
        cat "$work/log" >&2
        echo "mutant \`$1\` does not compile" >&2
        exit 2
    fi
    if [ "$status" -eq 0 ]; then
        survivors=$((survivors + 1))
        killers="SURVIVES"
    else
        killers=$(sed -n '/^failures:$/,$s/^    \([a-z_:0-9]*\)$/\1/p' "$work/log" | sort -u | tr '\n' ' ')
        [ -n "$killers" ] || killers="(the tests did not end)"
    fi
    printf '%-44s %s\n' "$1" "$killers"
    # With a new time, so that cargo sees the change back.
    cat "$work/original" >"$file"
}

printf '%-44s %s\n' 'GUARD REMOVED' 'TESTS THAT FAIL'

mutant 'a lost attempt commits nothing' lifecycle.rs \
    's/(AttemptState::Cancelled => \{\s*)Commit::Superseded/$1Commit::Accepted(self.end(ending, retry, now, noise))/'
mutant 'only the holder commits' lifecycle.rs \
    's/if given_to != by \{/if false {/'
mutant 'a repeated commit changes nothing' lifecycle.rs \
    's/=> Commit::Repeated,/=> Commit::Accepted(self.end(ending, retry, now, noise)),/'
mutant 'only a running attempt is taken' lifecycle.rs \
    's/if !self\.is_leased_for\(number\) \{\s*return None;\s*\}//'
mutant 'a pause before a retry is kept' lifecycle.rs \
    's/State::Waiting \{ not_before \} if not_before <= now => Some/State::Waiting { .. } if now >= 0 => Some/'
mutant 'no outcome before its artifacts' ledger/settle.rs \
    's/if !missing\.is_empty\(\) \{/if false {/'
mutant 'a repeated submission is answered' ledger/submit.rs \
    's/if existing\.spec == \*spec \{/if false {/'
mutant 'cancelling ends the running attempt' ledger/control.rs \
    's/if running \{\s*let attempt/if false {\n            let attempt/'
mutant 'no lease to one who was forgotten' ledger/lease.rs \
    's/if store::incarnation\(.*?\) \{/if false {/'
mutant 'an extraction follows its check' ledger/settle.rs \
    's/create\(tx, task\.livepatch, next, now\)\?;/let _ = next;/'
mutant 'events are numbered without gaps' store/events.rs \
    's/last_event = last_event \+ 1/last_event = last_event + 2/'
mutant 'what is refused is rolled back' store/writer.rs \
    's/ROLLBACK TO job; RELEASE job/RELEASE job/'
mutant 'a restart renews every lease' farm/mind.rs \
    's/lease\.renew\(now, mind\.config\.lease_ms\);/let _ = (&lease, now);/'
mutant 'a report renews the leases it names' farm/mind.rs \
    's/lease\.renew\(now, self\.config\.lease_ms\);/let _ = now;/'
mutant 'renewals outlive other changes' farm/mind.rs \
    's/lease\.expires = lease\.expires\.max\(renewed\.expires\);/let _ = (lease, renewed);/'
mutant 'a new incarnation holds nothing' farm/mind.rs \
    's/member\.registration\.incarnation != \*incarnation/false/'
mutant 'a stopping worker loses what it will not run' farm/mind.rs \
    's/if member\.draining && !member\.listed/if false && !member.listed/'
mutant 'a stopping worker keeps what it runs' farm/mind.rs \
    's/ && !member\.listed\.contains\(&attempt\)//'
mutant 'a paused livepatch starts nothing' farm/mind.rs \
    's/if !waiting \|\| paused \{/if !waiting {/'
mutant 'a drained worker gets nothing' farm/roster.rs \
    's/if let Some\(drain\) = &self\.standing\.drain \{/if let Some(drain) = self.standing.drain.as_ref().filter(|_| false) {/'
mutant 'who is forgotten is drained no more' farm/roster.rs \
    's/self\.think\(worker, Standing::default\(\)\);//'

over_the_network 'network: a lost attempt commits nothing' coordinator/src/lifecycle.rs \
    's/(AttemptState::Cancelled => \{\s*)Commit::Superseded/$1Commit::Accepted(self.end(ending, retry, now, noise))/'
over_the_network 'network: a repeated commit changes nothing' coordinator/src/lifecycle.rs \
    's/=> Commit::Repeated,/=> Commit::Accepted(self.end(ending, retry, now, noise)),/'
over_the_network 'network: a repeated commit is answered the same' coordinator/src/lifecycle.rs \
    's/=> Commit::Repeated,/=> Commit::Superseded,/'
over_the_network 'network: a repeated submission is answered' coordinator/src/ledger/submit.rs \
    's/if existing\.spec == \*spec \{/if false {/'
over_the_network 'network: a restart renews every lease' coordinator/src/farm/mind.rs \
    's/lease\.renew\(now, mind\.config\.lease_ms\);/let _ = (&lease, now);/'
over_the_network 'network: the coordinator probes connections' coordinator/src/server.rs \
    's/\.http2_keepalive_interval\(Some\(ms\(config.keepalive_ms\)\)\)//'
over_the_network 'network: a worker probes its connection' worker/src/delivery.rs \
    's/\.http2_keep_alive_interval\(Duration::from_secs\(5\)\)//'
over_the_network 'network: who is away is asked again' worker/src/delivery.rs \
    's/Code::InvalidArgument \| Code::NotFound/Code::Unavailable | Code::NotFound/'
over_the_network 'network: a worker never runs an attempt twice' worker/src/attempts.rs \
    's/\|\| !table\.seen\.insert\(id\)/|| table.open.contains_key(&id)/'

[ "$survivors" -eq 0 ] || { echo "$survivors guards can be removed unnoticed" >&2; exit 1; }
