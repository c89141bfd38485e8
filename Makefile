# `make run` and `make test` do everything on a fresh machine; see README.md.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
ONSET = $(CARGO_TARGET_DIR)/release/onset

STATIC = $(CARGO_TARGET_DIR)/$(shell uname -m)-unknown-linux-musl/release/onset

# All C but the kernel's types, which are written as the kernel writes them.
C = $(wildcard bpf/*.bpf.c) $(filter-out bpf/vmlinux.h,$(wildcard bpf/*.h)) $(wildcard deploy/demo/*.c docs/example/*.c benches/*.c src/layout/*.c tests/truth/programs/*.c)

# Tests of the library that measure the machine they run on: nothing runs beside them.
MEASURING = capture::tests bpf:: symbol::live

.PHONY: run test everything lab aarch64 demo release install uninstall dist bench compare truth soak fuzz check fmt dependencies test-dependencies build

run: build            ## builds and starts the agent on its built-in config
	$(ONSET) run

build: dependencies
	cargo build --release --locked

test: test-dependencies   ## every test; those of the real agent one after the other: they measure. What a test skips is shown
	tests/twice --lib --bins --test purity --test allocations -- $(addprefix --skip ,$(MEASURING)) --show-output
	tests/twice --lib -- $(MEASURING) --test-threads=1 --show-output
	tests/twice --test live --test ship --test deploy -- --test-threads=1 --show-output

everything:           ## the gate with all of its shards, an hour or more; its result is kept in docs/whole-run.md
	.ci/run --everything

lab: test-dependencies    ## the static binary on each kernel of KERNELS, in VMs: docs/kernels.md
	tests/lab/run $(KERNELS)

demo: build           ## causes a real anomaly in a throw-away cgroup and shows what was caught
	deploy/demo/run $(ONSET)

release: dependencies ## one static binary
	deploy/static/build

# Not built here: who installs is root, and the build need not be. PREFIX, DESTDIR, BINARY, SYSCTL, PURGE: see deploy/install.
install:              ## what `make release` built, with its unit and a default config; keeps a config that is there
	@BINARY=$(or $(BINARY),$(STATIC)) deploy/install

uninstall:            ## leaves config and log, unless PURGE=1
	@deploy/install uninstall

dist: dependencies    ## the release's tarball and checksums, in out/
	@deploy/dist

aarch64: test-dependencies  ## the same for another architecture: built and linked, not run
	CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	cargo build --locked --target aarch64-unknown-linux-gnu --bin onset

bench: test-dependencies  ## the hot paths, beside what they are measured against; kept in docs/performance.md
	benches/run

compare: test-dependencies  ## the agent beside node_exporter, and what its captures cost; kept in docs/performance.md
	benches/compare $(or $(SECONDS),120)

truth: test-dependencies  ## what the static binary says beside what else measures it; kept in docs/accuracy.md, unless CHECK=1
	ONSET_TRUTH_ROUNDS=$(or $(ROUNDS),10) ONSET_TRUTH_PAGE=$(if $(CHECK),,$(CURDIR)/docs/accuracy.md) \
		ONSET_TESTED=$$(deploy/static/build | tail -n 1) cargo test --locked --test truth -- --nocapture

soak: test-dependencies   ## all anomalies, outages and reloads for SECONDS=300: nothing grows, nothing is lost
	ONSET_SOAK_SECONDS=$(or $(SECONDS),300) ONSET_TESTED=$$(deploy/static/build | tail -n 1) \
		cargo test --locked --test soak -- --nocapture

fuzz: dependencies    ## every parser of foreign bytes, SECONDS=10 each
	fuzz/run $(or $(SECONDS),10)

check: test-dependencies  ## formatting and lints, as the gate has them
	cargo fmt --check
	clang-format --dry-run --Werror $(C)
	cargo clippy --locked --all-targets -- -D warnings

fmt: test-dependencies
	cargo fmt
	clang-format -i $(C)

dependencies:
	@deploy/dependencies

test-dependencies:
	@deploy/dependencies tests
