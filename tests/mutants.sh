#!/bin/sh
# One mutant and more for each promise of the farm: removes the guard that the promise rests on from a copy of the sources
# and shows which tests notice.
# Usage: tests/mutants.sh [WORD]   only the mutants whose name contains WORD, or, of a number, those of that promise
# Environment: KLP_FARM_TREES (kernel trees; some guards show on real kernels alone), KLP_SIM_SEEDS (default 400),
# CARGO_TARGET_DIR (default target/mutants; kept, so that a second run is quick).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
only=${1:-}
: "${KLP_FARM_TREES:?a folder of kernel trees: run \`make mutants\`, which sets it}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/mutants}"
# Always the same folder, so that cargo knows it again.
work="$CARGO_TARGET_DIR/sources"
trap 'rm -rf "$work"' EXIT
export KLP_SIM_SEEDS="${KLP_SIM_SEEDS:-400}" RUST_BACKTRACE=0 PROPTEST_MAX_SHRINK_ITERS=0
survivors=0
kept=

rm -rf "$work"
mkdir -p "$work"
# With new times (-m), so that cargo does not take a mutant for built from these that a former run left in the target folder.
tar -C "$root" --exclude=./target --exclude=./.git -cf - . | tar -C "$work" -xmf -

# judge TARGETS...: runs these tests of the mutated sources.
judge() {
    case "$*" in
        # The programs that whole-system tests start.
        *klp-tests*) (cd "$work" && cargo build --quiet --locked --workspace) >"$work/log" 2>&1 || return ;;
    esac
    (cd "$work" && timeout 900 cargo test --quiet --locked --no-fail-fast "$@") >"$work/log" 2>&1
}

# mutant PROMISE NAME FILE PERL [TARGETS]: applies a Perl substitution over the whole file, runs the tests of its crate, or
# those that TARGETS tells, and prints those that fail. PROMISE is its number, or `-` for a rule beside the promises.
mutant() {
    case "$2" in *"$only"*) ;; *) [ "$1" = "$only" ] || return 0 ;; esac
    file="$work/$3"
    cp -p "$file" "$work/original"
    # All of its substitutions, or none.
    all=$(printf '%s' "$4" | sed 's#; s/#; $all \&\&= s/#g')
    perl -0pi -e "my \$before = \$_; my \$all = $all; \$_ = \$before unless \$all" "$file"
    if cmp -s "$file" "$work/original"; then
        echo "mutant \`$2\` changes nothing in $3: adapt its pattern in tests/mutants.sh" >&2
        exit 2
    fi
    status=0
    # TARGETS are words.
    # shellcheck disable=SC2086
    case "${5:-}/$3" in
        /coordinator/*)
            judge -p klp-coordinator --lib || status=$?
            # What only makes recovery slower shows over the wire.
            [ "$status" -ne 0 ] || judge -p klp-coordinator --test control --test faults --test main_path || status=$?
            ;;
        /worker/*) judge -p klp-worker --lib --test process || status=$? ;;
        /livepatch/*) judge -p klp-livepatch --lib || status=$? ;;
        *) judge $5 || status=$? ;;
    esac
    if grep -q '^error' "$work/log" && ! grep -q '^test result' "$work/log"; then
        cat "$work/log" >&2
        echo "mutant \`$2\` does not compile" >&2
        exit 2
    fi
    if [ "$status" -eq 0 ]; then
        survivors=$((survivors + 1))
        killers="SURVIVES"
    else
        kept="$kept $1"
        killers=$(sed -n '/^failures:$/,$s/^    \([a-z_:0-9]*\)$/\1/p' "$work/log" | sort -u | tr '\n' ' ')
        [ -n "$killers" ] || killers="(the tests did not end)"
    fi
    printf '%7s  %-46s %s\n' "$1" "$2" "$killers"
    # With a new time, so that cargo sees the change back.
    cat "$work/original" >"$file"
}

printf '%7s  %-46s %s\n' 'PROMISE' 'GUARD REMOVED' 'TESTS THAT FAIL'

# 1. A submission that was acknowledged survives any crash.
mutant 1 'a repeated submission is answered' coordinator/src/ledger/submit.rs \
    's/if existing\.spec\.repeats\(spec\) \{/if false {/'
mutant 1 'an answer waits for the commit' coordinator/src/store/writer.rs \
    's/(failpoint::pass\(Point::BeforeCommit\);)/for answer in answers.drain(..) { answer(Ok(())); }\n    $1/' \
    '-p klp-coordinator --test failpoints'
mutant 1 'what is refused is not acknowledged' coordinator/src/store/writer.rs \
    's/\(Err\(error\), _\) => Err\(refused\(error\)\.into\(\)\)/(Err(_), Some(Ok(done))) => Ok(done),\n                    (Err(error), None) => Err(refused(error).into())/' \
    '-p klp-coordinator --test disk_full'
mutant 1 'what is committed is synced' coordinator/src/store/mod.rs \
    's/"synchronous", "full"/"synchronous", "off"/'

# 2. At most one live lease, and only its holder commits.
mutant 2 'only the holder commits' coordinator/src/lifecycle.rs \
    's/if given_to != by \{/if false {/'
mutant 2 'a lost attempt commits nothing' coordinator/src/lifecycle.rs \
    's/(AttemptState::Cancelled => \{\s*)Commit::Superseded/$1Commit::Accepted(self.end(ending, retry, now, noise))/'
mutant 2 'only a running attempt is taken' coordinator/src/lifecycle.rs \
    's/if !self\.is_leased_for\(number\) \{\s*return None;\s*\}//'
mutant 2 'no lease to one who was forgotten' coordinator/src/ledger/lease.rs \
    's/if store::incarnation\(.*?\) \{/if false {/'

# 3. An outcome is committed once, and never before its artifacts are stored and their digests checked.
mutant 3 'a repeated commit changes nothing' coordinator/src/lifecycle.rs \
    's/=> Commit::Repeated,/=> Commit::Accepted(self.end(ending, retry, now, noise)),/'
mutant 3 'no outcome before its artifacts' coordinator/src/ledger/settle.rs \
    's/if !missing\.is_empty\(\) \{/if false {/'
mutant 3 'an artifact is what its digest says' coordinator/src/blobs.rs \
    's/if found != self\.digest \{/if false {/'
mutant 3 'an artifact is as long as announced' coordinator/src/blobs.rs \
    's/if self\.written != self\.size \{/if false {/'
mutant 3 'what is refused is rolled back' coordinator/src/store/writer.rs \
    's/ROLLBACK TO job; RELEASE job/RELEASE job/'

# 4. No task is lost.
mutant 4 'an extraction follows its check' coordinator/src/ledger/settle.rs \
    's/create\(tx, task\.livepatch, next, now\)\?;/let _ = next;/'
mutant 4 'a pause before a retry is kept' coordinator/src/lifecycle.rs \
    's/State::Waiting \{ not_before \} if not_before <= now => Some/State::Waiting { .. } if now >= 0 => Some/'
mutant 4 'a new incarnation holds nothing' coordinator/src/farm/mind.rs \
    's/member\.registration\.incarnation != \*incarnation/false/'
mutant 4 'a stopping worker loses what it will not run' coordinator/src/farm/mind.rs \
    's/if member\.draining && !member\.listed/if false && !member.listed/'
mutant 4 'an outcome waits for the artifacts to be taken' worker/src/delivery.rs \
    's/Code::InvalidArgument \| Code::NotFound/Code::InvalidArgument | Code::ResourceExhausted | Code::NotFound/' \
    '-p klp-tests --test disk_full'
mutant 4 'a full disk is no fault of the codestream' worker/src/runner.rs \
    's/match disk_is_full\(scratch\.path\(\)\)/match false \&\& disk_is_full(scratch.path())/' \
    '-p klp-tests --test disk_full'

# 5. A worker never writes into a kernel tree; two attempts on one tree never see each other.
mutant 5 'make tries its options outside of the tree' worker/src/trees/mod.rs \
    's/args\.push\(format!\(\"TMPOUT=[^;]*;/let _ = scratch;/' \
    '-p klp-worker --test trees'
mutant 5 'each attempt has a scratch folder of its own' worker/src/runner.rs \
    's/scratch: scratch\.path\(\)\.to_owned\(\)/scratch: shared.config.data_dir.join("scratch")/' \
    '-p klp-tests --test isolation'
mutant 5 'a scratch folder goes with its attempt' worker/src/runner.rs \
    's/(    let context = Context \{)/    let scratch = std::mem::ManuallyDrop::new(scratch);\n$1/' \
    '-p klp-tests --test isolation'

# 6. Events are numbered without gaps, and a cursor misses none and sees none twice.
mutant 6 'events are numbered without gaps' coordinator/src/store/events.rs \
    's/last_event = last_event \+ 1/last_event = last_event + 2/'
mutant 6 'a watch begins after its cursor' coordinator/src/store/events.rs \
    's/number > \? ORDER BY/number >= ? ORDER BY/'
mutant 6 'a watch that reads in parts skips nothing' coordinator/src/api/watch.rs \
    's/after = event\.number;/after = after.max(livepatch.last_event.saturating_sub(1)).max(event.number);/'

# 7. After a restart of the coordinator what runs is re-adopted.
mutant 7 'a restart renews every lease' coordinator/src/farm/mind.rs \
    's/lease\.renew\(now, mind\.config\.lease_ms\..*?\);\n/let _ = (&lease, now);\n/'
mutant 7 'a report renews the leases it names' coordinator/src/farm/mind.rs \
    's/lease\.renew\(now, self\.config\.lease_ms\);/let _ = now;/'
mutant 7 'renewals outlive other changes' coordinator/src/farm/mind.rs \
    's/lease\.expires = lease\.expires\.max\(renewed\.expires\);/let _ = (lease, renewed);/'
mutant 7 'a stopping worker keeps what it runs' coordinator/src/farm/mind.rs \
    's/ && !member\.listed\.contains\(&attempt\)//'
mutant 7 'attempts outlive a broken session' worker/src/session.rs \
    's/(        match ended\.code\(\) \{)/        party.attempts().cancel_all();\n$1/' \
    '-p klp-tests --test partition'
mutant 7 'an attempt never runs twice' worker/src/attempts.rs \
    's/ \|\| !table\.seen\.insert\(id\)//'

# 8. Cancelling stops new attempts at once and kills running ones within 5 s.
mutant 8 'cancelling ends the running attempt' coordinator/src/ledger/control.rs \
    's/if running \{\s*let attempt/if false {\n            let attempt/'
mutant 8 'a worker stops what is not wanted any more' worker/src/session.rs \
    's/party\.attempts\(\)\.cancel_unless\(.*?\);/let _ = wanted;/' \
    '-p klp-tests --test rogue cancelled'
mutant 8 'an attempt that is stopped is cancelled' worker/src/attempts.rs \
    's/(no longer wants it\"\);\s*)open\.cancel\.cancel\(\);/$1/'
mutant 8 'a cancelled tool is killed' worker/src/process.rs \
    's/\(\) = cancel\.cancelled\(\) => break End::Cancelled,/() = cancel.cancelled(), if false => break End::Cancelled,/'
mutant 8 'what left its group is killed' worker/src/process/reap.rs \
    's/let strays = self\.strays\(group\);/let strays: Vec<Pid> = Vec::new();/; s/kill_descendants\(group, until\);//'
mutant 8 'what a short process leaves is killed' worker/src/process/reap.rs \
    's/(let \(mut looked_at, mut strays\) = )/if true {\n            return Some(Vec::new());\n        }\n        $1/'

# 9. Nothing a client sends can name a path outside its tree, start a program or become an option.
mutant 9 'no way out of the tree' livepatch/src/names.rs \
    's/"" \| "\." \| "\.\." =>/"" | "." =>/'
mutant 9 'no absolute path' livepatch/src/names.rs \
    's/if s\.starts_with\(.\/.\) \{/if false {/; s/"" \| "\." \| "\.\." =>/"." | ".." =>/'
mutant 9 'no path that looks like an option' livepatch/src/names.rs \
    's/p if p\.starts_with\(.-.\) =>/p if false \&\& p.is_empty() =>/'
mutant 9 'no character that a shell or make reads' livepatch/src/names.rs \
    's/"_-\.\/\+,"\.contains\(\*c\)/"_-.\/+,;\$() \\n".contains(*c)/'
mutant 9 'no module in another folder' livepatch/src/names.rs \
    's/"_-\.\+"\.contains\(\*c\)/"_-.+\/".contains(*c)/'
mutant 9 'a function is an identifier' livepatch/src/names.rs \
    's/b\.is_ascii_alphanumeric\(\) \|\| b == b._.\);\n    if ok \{\n        Ok\(\(\)\)\n    \} else \{\n        Err\(format!\("function/true);\n    if ok {\n        Ok(())\n    } else {\n        Err(format!("function/'
mutant 9 'a goal of make is nothing but a file' worker/src/extract/command.rs \
    's/if file\.chars\(\)\.all\(harmless\) \{/if true || file.chars().all(harmless) {/'

# 10. A tool is stopped at its limits, with its log kept up to a stated size.
mutant 10 'a tool that hangs is stopped' worker/src/process.rs \
    's/tokio::time::sleep\(limits\.wall\)/tokio::time::sleep(limits.wall * 20)/'
mutant 10 'a tool that floods is stopped' worker/src/process.rs \
    's/if budget\.seen\(\) > limits\.output \{/if false {/'
mutant 10 'memory is limited' worker/src/process.rs \
    's/if let Some\(bytes\) = memory \{/if let Some(bytes) = memory.filter(|_| false) {/'
mutant 10 'what forks is killed with all its family' worker/src/process/reap.rs \
    's/kill_descendants\(group, until\);//'
mutant 10 'orphans stay in the family' worker/src/process.rs \
    's/nix::sys::prctl::set_child_subreaper\(true\)\?;//'
mutant 10 'a log is bounded' worker/src/attempt_log.rs \
    's/while self\.tail_bytes > TAIL\s*&& let/while false \&\& let/'
mutant 10 'the end of a flood is kept' worker/src/extract/child_backend.rs \
    's/output_kept: u64::MAX,//' \
    '-p klp-tests --test rogue gibibyte'
mutant 10 'what a tool answers is bounded' worker/src/extract/tool.rs \
    's/const MOST: u64 = 64 << 20;/const MOST: u64 = 64 << 30;/' \
    '-p klp-tests --test rogue answer'

# On a simulated network.
network='-p klp-tests --test turmoil promises'
mutant 2 'network: a lost attempt commits nothing' coordinator/src/lifecycle.rs \
    's/(AttemptState::Cancelled => \{\s*)Commit::Superseded/$1Commit::Accepted(self.end(ending, retry, now, noise))/' "$network"
mutant 3 'network: a repeated commit changes nothing' coordinator/src/lifecycle.rs \
    's/=> Commit::Repeated,/=> Commit::Accepted(self.end(ending, retry, now, noise)),/' "$network"
mutant 3 'network: a repeated commit is answered the same' coordinator/src/lifecycle.rs \
    's/=> Commit::Repeated,/=> Commit::Superseded,/' "$network"
mutant 1 'network: a repeated submission is answered' coordinator/src/ledger/submit.rs \
    's/if existing\.spec\.repeats\(spec\) \{/if false {/' "$network"
mutant 7 'network: a restart renews every lease' coordinator/src/farm/mind.rs \
    's/lease\.renew\(now, mind\.config\.lease_ms\..*?\);\n/let _ = (&lease, now);\n/' "$network"
mutant 4 'network: the coordinator probes connections' coordinator/src/server.rs \
    's/\.http2_keepalive_interval\(Some\(ms\(config.keepalive_ms\)\)\)//' "$network"
mutant 4 'network: a worker probes its connection' worker/src/delivery.rs \
    's/\.http2_keep_alive_interval\(Duration::from_secs\(5\)\)//' "$network"
mutant 4 'network: who is away is asked again' worker/src/delivery.rs \
    's/Code::InvalidArgument \| Code::NotFound/Code::Unavailable | Code::NotFound/' "$network"
mutant 7 'network: a worker never runs an attempt twice' worker/src/attempts.rs \
    's/\|\| !table\.seen\.insert\(id\)/|| table.open.contains_key(&id)/' "$network"

# Rules beside the promises.
mutant - 'lists are bounded' livepatch/src/spec/draft.rs \
    's/if drafts\.len\(\) > MAX_TARGETS \{/if false {/; s/if names\.len\(\) > MAX_FUNCTIONS \{/if false {/'
mutant - 'what an architecture lacks is copied' coordinator/src/plan/reconcile.rs \
    's/if avoid\.is_empty\(\) \|\| round >= MAX_ROUNDS \{/if true {/'
mutant - 'what is built nowhere is no success' coordinator/src/plan/verdict.rs \
    's/if succeeded == 0 && failed == 0 \{/if false {/'
mutant - 'a kernel without the code is not extracted from' coordinator/src/ledger/settle.rs \
    's/&& check\.leaves_out\(\)/\&\& false/' \
    '-p klp-tests --test suse'
mutant - 'fixes are applied before anything is extracted' worker/src/runner/extracting.rs \
    's/if job\.fixes\.is_empty\(\) \{/if true {/' \
    '-p klp-tests --test suse'
mutant - 'fixes are judged where they are checked' worker/src/runner/checking.rs \
    's/if !job\.fixes\.is_empty\(\) && !report/if false \&\& !report/' \
    '-p klp-tests --test fixes'
mutant - 'where nothing is built nothing has to apply' worker/src/runner/checking.rs \
    's/ && !report\.leaves_out\(\)//' \
    '-p klp-tests --test fixes'
mutant - 'fixes for nobody are refused' coordinator/src/ledger/fixes.rs \
    's/if strange\.is_empty\(\) \{/if true {/'
mutant - 'a paused livepatch starts nothing' coordinator/src/farm/mind.rs \
    's/if !waiting \|\| paused \{/if !waiting {/'
mutant - 'a worker without a protocol in common is refused' coordinator/src/api/worker.rs \
    's/protocol = agreed\(caller, &state\)\?;/protocol = agreed(caller, \&state).unwrap_or(1);/' \
    '-p klp-tests --test versions refused'
mutant - 'a coordinator without a protocol in common is not obeyed' worker/src/session.rs \
    's/Err\(apart\) => return Status::failed_precondition\(apart\.to_string\(\)\),/Err(_) => 1,/' \
    '-p klp-tests --test versions takes_nothing'
mutant - 'a step of another CA cuts off nobody who does not know it' coordinator/src/auth/rotation.rs \
    's/unaware\.map_or\(Ok\(\(\)\), \|workers\| Err\(Refused::Unaware\(workers\)\)\)/drop(unaware); Ok(())/'
mutant - 'a step of another CA cuts off nobody whom the former let in' coordinator/src/auth/rotation.rs \
    's/held\.map_or\(Ok\(\(\)\), \|workers\| Err\(Refused::Held\(workers\)\)\)/drop(held); Ok(())/'
mutant - 'a worker fetches what it is to trust' worker/src/identity.rs \
    's/let other = !trust\.is_empty\(\)/let other = false \&\& !trust.is_empty()/' \
    '-p klp-tests --test identity replaces'
mutant - 'what needs a slot is not kept waiting' coordinator/src/schedule/mod.rs \
    's/\(waiting\.scarred > 0 \|\| !is_short\) &&/false \&\&/'
mutant - 'who had not begun is not blamed' coordinator/src/farm/mind.rs \
    's/let unbegun = self\.unbegun\.contains\(&attempt\.task\);/let unbegun = false;/'
mutant - 'a tryout takes no slot' worker/src/worker.rs \
    's/match tryout \{/match false {/' \
    '-p klp-tests --test rogue slip'
mutant - 'a drained worker gets nothing' coordinator/src/farm/roster.rs \
    's/if let Some\(drain\) = &self\.standing\.drain \{/if let Some(drain) = self.standing.drain.as_ref().filter(|_| false) {/'
mutant - 'who is forgotten is drained no more' coordinator/src/farm/roster.rs \
    's/self\.think\(worker, Standing::default\(\)\);//'

if [ -z "$only" ]; then
    for promise in 1 2 3 4 5 6 7 8 9 10; do
        case "$kept " in
            *" $promise "*) ;;
            *) echo "promise $promise: no test notices when it is broken" >&2; survivors=$((survivors + 1)) ;;
        esac
    done
fi
[ "$survivors" -eq 0 ] || { echo "$survivors guards can be removed unnoticed" >&2; exit 1; }
