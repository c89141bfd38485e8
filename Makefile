# `make run` and `make test` do everything on a fresh machine; see README.md.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
ONSET = $(CARGO_TARGET_DIR)/release/onset

.PHONY: run test lab demo release bench fuzz check fmt dependencies test-dependencies build

run: build            ## builds and starts the agent on its built-in config
	$(ONSET) run

build: dependencies
	cargo build --release --locked

test: test-dependencies   ## every test; those of the real agent one after the other: they measure. What a test skips is shown
	cargo test --locked --no-fail-fast --lib --bins --test purity --test allocations -- --show-output
	cargo test --locked --test live -- --test-threads=1 --show-output
	cargo test --locked --test ship -- --test-threads=1 --show-output

lab: test-dependencies    ## the static binary on each kernel of KERNELS, in VMs: docs/kernels.md
	tests/lab/run $(KERNELS)

demo: build           ## causes a real anomaly in a throw-away cgroup and shows what was caught
	deploy/demo/run $(ONSET)

release: dependencies ## one static binary
	deploy/static/build

bench: test-dependencies  ## the hot paths, beside what they are measured against
	cargo bench --locked --bench hot --bench armed

fuzz: dependencies    ## every parser of foreign bytes, SECONDS=10 each
	fuzz/run $(or $(SECONDS),10)

check: test-dependencies  ## formatting and lints, as the gate has them
	cargo fmt --check
	clang-format --dry-run --Werror bpf/*.bpf.c bpf/common.h bpf/sampled.h deploy/demo/*.c
	cargo clippy --locked --all-targets -- -D warnings

fmt: test-dependencies
	cargo fmt
	clang-format -i bpf/*.bpf.c bpf/common.h bpf/sampled.h deploy/demo/*.c

dependencies:
	@deploy/dependencies

test-dependencies:
	@deploy/dependencies tests
