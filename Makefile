# What people run: `make demo`, `make test`. Both install what is missing, saying so.

CACHE ?= $(or $(KLP_FARM_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/klp-farm)
TREES := $(CACHE)/trees
FOREIGN_TREES := $(CACHE)/foreign-trees
ADD_TREES = target/debug/klp-worker tree add debian --latest 2 --trees $(TREES)
ADD_FOREIGN_TREES = target/debug/klp-worker tree add debian --latest 1 --arch s390x --trees $(FOREIGN_TREES)
SEEDS ?= 20000
FUZZ_SECONDS ?= 60
KUBERNETES_VALIDATE := 1.37.0
# Ignored tests are those that take minutes and gigabytes: this is where they run. Many wait for what they started, so one more
# than there are cores runs at a time.
CARGO_TEST := $(if $(shell command -v cargo-nextest),cargo nextest run --no-fail-fast --run-ignored all --test-threads $(shell echo $$(($$(nproc) + 1))),cargo test --no-fail-fast)
# Beside those that need what only loopback has: a bucket, a terminal, keys of a farm without TLS.
APART := package(klp-tests) & (binary(control) | binary(disk_full) | binary(faults) | binary(fixes) | binary(hostile) | \
    binary(isolation) | binary(real_kernels) | binary(rogue) | binary(suse))
CARGO_TEST_ARGS := $(if $(shell command -v cargo-nextest),,-- --include-ignored)

.PHONY: demo test test-apart test-trees build release man packages lint-packages try-packages lint-kubernetes deps test-deps trees foreign-trees lint bench bench-farm bench-symbols eval screenshots simulate mutants cargo-mutants fuzz deny advisories try-upgrade

## demo: the main job on real kernels, start to end
demo: release
	./deploy/demo.sh target/release

## test: formatting, lints, and every test, those on real kernels included
# All is built once, with the features that tests need, before anything runs; the kernels are fetched beside the lints.
test: deps test-deps
	cargo build --locked --workspace --all-targets
	$(MAKE) -j2 lint test-trees
	KLP_FARM_PROMETHEUS=$(CACHE)/prometheus KLP_FARM_AXE=$(CACHE)/axe-core KLP_FARM_S3=$(CACHE)/s3s-fs \
	    KLP_FARM_TREES=$(TREES) KLP_FARM_FOREIGN_TREES=$(FOREIGN_TREES) $(CARGO_TEST) --locked --workspace $(CARGO_TEST_ARGS)

## test-apart: whole farms once more, with coordinator and workers on hosts of their own, under mutual TLS; as root
test-apart: deps test-deps
	cargo build --locked --workspace --all-targets
	$(MAKE) test-trees
	KLP_FARM_TESTS_APART=1 KLP_FARM_S3=$(CACHE)/s3s-fs KLP_FARM_TREES=$(TREES) KLP_FARM_FOREIGN_TREES=$(FOREIGN_TREES) \
	    cargo nextest run --no-fail-fast --locked --workspace -E '$(APART)'

lint: deps
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo tree --locked --manifest-path fuzz/Cargo.toml >/dev/null # its lock file is of its own

## trees: the two newest kernels of this Debian, as the tests and the demo use them
trees: build
	$(ADD_TREES)

## foreign-trees: the newest kernel of this Debian for s390x: another byte order, on any machine
foreign-trees: build
	$(ADD_FOREIGN_TREES)

test-trees:
	$(ADD_TREES)
	$(ADD_FOREIGN_TREES)

build: deps
	cargo build --locked --workspace

release: deps
	cargo build --locked --release --workspace

## bench: one native extraction beside the kernel's own compiler
bench: release trees
	target/release/klp-extract-bench --trees $(TREES)

## bench-farm: the farm's speed beside what this machine can do; BENCH_ARGS=--quick for a first look
bench-farm: release
	target/release/klp-farm-bench $(BENCH_ARGS)

## bench-symbols: finding symbols in a vmlinux with debug information, beside a Python script; fetches 860 MB once
bench-symbols: release trees
	./worker/bench/symbols.sh $(CACHE)/bench target/release/klp-symbols-bench $(TREES)

## eval: how many of a list of functions, changed between two Debian kernels, extract and compile
eval: release trees
	target/release/klp-extract-eval --trees $(TREES) --work $(CACHE)/eval \
	    --list worker/tests/fixtures/extract/changed-a.txt

## screenshots: pictures of the dashboard's pages, in both themes, on a desk and on a phone
screenshots: build trees test-deps
	target/debug/klp-farm-screenshots --trees $(TREES) --out target/screenshots

## simulate: the farm by seed, alone and over a simulated network; make simulate SEEDS=100000
simulate: deps
	KLP_SIM_SEEDS=$(SEEDS) cargo test --locked -p klp-coordinator --lib simulation
	KLP_TURMOIL_SEEDS=$$(($(SEEDS) / 50)) cargo test --locked -p klp-tests --test turmoil promises

## fuzz: every parser of a foreign file, for FUZZ_SECONDS each; make fuzz FUZZ=groups for one
fuzz: deps
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	FUZZ_SECONDS=$(FUZZ_SECONDS) ./fuzz/run.sh $(FUZZ)

## mutants: each guard that a promise rests on is removed, and a test must notice
mutants: deps trees
	KLP_FARM_TREES=$(TREES) ./tests/mutants.sh

## cargo-mutants: each small change to the pure core must fail a test, in half an hour; MUTANTS_ARGS='-F plan.rs' for less
cargo-mutants: deps
	command -v cargo-mutants >/dev/null || cargo install --locked cargo-mutants
	CARGO_PROFILE_DEV_DEBUG=false PROPTEST_MAX_SHRINK_ITERS=0 cargo mutants --output target $(MUTANTS_ARGS) \
	    || [ $$? = 3 ] # some loop for ever, which is noticed

## deny: the licences, origins and duplicates of our dependencies, by deny.toml; without a network
deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --offline check licenses bans sources

## advisories: known faults in them, by RustSec's database, which is fetched; a step of each release
advisories:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check advisories

## man: man pages and shell completions, in target/manual
man: deps
	cargo build --locked --release -p klp-farm -p klp-coordinator -p klp-worker -p klp-manual
	rm -rf target/manual
	# The defaults of anybody, not of who builds.
	HOME='~' XDG_DATA_HOME= target/release/klp-manual target/manual $$(git log -1 --format=%cs 2>/dev/null || date +%F)
	gzip -9nk target/manual/man/*.1

## packages: Debian packages and RPMs of coordinator, worker and command line, in target/packages; VERSION=0.1.1 for another
packages: man
	command -v cargo-deb >/dev/null || cargo install --locked cargo-deb
	command -v cargo-generate-rpm >/dev/null || cargo install --locked cargo-generate-rpm
	./deploy/packages.sh target/packages $(VERSION)

## lint-packages: what lintian and rpmlint say of them; errors fail
lint-packages: packages
	./deploy/lint-packages.sh target/packages

## try-packages: installs, starts, upgrades, removes and purges them in a clean Debian, as root; takes minutes
try-packages: packages trees
	KLP_FARM_TREES=$(TREES) ./deploy/try-packages.sh target/packages

## try-upgrade: old and new programs in one farm on real kernels, each replaced while it works; make try-upgrade FROM=COMMIT
try-upgrade: trees
	KLP_FARM_TREES=$(TREES) FROM=$(FROM) ./deploy/try-upgrade.sh target/debug

## lint-kubernetes: the manifests against Kubernetes's own schemas, by a validator from PyPI
lint-kubernetes:
	python3 -m venv target/kubernetes-validate
	target/kubernetes-validate/bin/pip install --quiet kubernetes-validate==$(KUBERNETES_VALIDATE)
	target/kubernetes-validate/bin/kubernetes-validate --strict \
	    $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))

deps:
	./deploy/deps.sh

test-deps:
	KLP_FARM_CACHE=$(CACHE) ./deploy/deps.sh --tests
