# Thin on purpose: what each target does is in the script or command that it names.
.PHONY: help demo test bench sim soak ebpf install deps clean

CARGO ?= cargo
SEEDS ?= 10000
START ?= 0
export PREFIX ?= /usr/local
export DESTDIR

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: deps ## about half a minute of short connections, kernel against fourwave, in one table
	$(CARGO) build --release --locked --bins
	target/release/fourwave-bench compare --rounds 3 --duration 4

test: deps ## everything that is checked before a change lands
	.ci/test

bench: deps ## the whole comparison, under half an hour, with a page of charts; FULL=1: the scaling series too
	$(CARGO) build --release --locked --bins
	mkdir -p bench/results
	target/release/fourwave-bench matrix $(if $(FULL),--full) \
		--json bench/results/latest.json --html bench/results/latest.html

sim: deps ## the seeded simulator: make sim SEEDS=100000 START=0
	SEEDS=$(SEEDS) START=$(START) $(CARGO) test --release --locked -p fourwave-stack --test simulator -- --nocapture --test-threads=1

soak: deps ## longer loads and longer fuzzing than make test
	.ci/soak

ebpf: ## rebuild the committed XDP program
	ebpf/build.sh

install: ## what `cargo build --release --workspace --lib --bins` has built: make install PREFIX=/usr DESTDIR=
	deploy/install

deps: ## install the Debian packages that building needs, or say which are missing
	@.ci/deps

clean: ## remove what was built
	$(CARGO) clean
