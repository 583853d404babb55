# What people and CI run. `make` alone lists the targets.

# Tools that deploy/tools.sh installs into this repository go before those of the system.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

# The oldest release that builds tollgate, as rustup names it.
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)

.DEFAULT_GOAL := help
.PHONY: help run test fuzz demo docs lint bench bench-micro tools msrv audit image release pgo

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: ## serve an example policy from memory; needs nothing but Rust
	cargo run --release

test: tools ## all tests; installs redis-server, prometheus, chromium, faketime, bubblewrap, nghttp2, Envoy, grpcurl, h2spec and gRPC for Python, Go and Node.js if missing
	cargo test --lib --bins --tests
	cargo test --doc

fuzz: TARGET = $(firstword $(ARGS))
fuzz: ## a fuzz target until it fails or is stopped; ARGS="TARGET -max_total_time=600"; needs nightly Rust, installs cargo-fuzz
	deploy/tools.sh cargo-fuzz
	mkdir -p fuzz/found/$(TARGET)
	cargo +nightly fuzz run $(TARGET) fuzz/found/$(TARGET) fuzz/corpus/$(TARGET) -- $(wordlist 2,9,$(ARGS))

demo: tools ## Envoy, two tollgates, Redis and three backends on this machine; ARGS=cluster for a Redis Cluster
	deploy/demo.sh $(ARGS)

docs: ## the manual as a searchable book in target/book; installs mdBook if it is missing
	deploy/tools.sh mdbook
	mdbook build docs

lint: ## formatting, luacheck, clippy and documentation, warnings are errors; installs luacheck if missing
	cargo fmt --check
	deploy/tools.sh luacheck
	deploy/luacheck.sh
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

audit: ## licences, sources and advisories of the dependencies; installs cargo-deny if it is missing
	deploy/audit.sh

msrv: ## build with the oldest Rust that Cargo.toml states
	cargo +$(MSRV) check --locked --all-targets

image: ## the image of this machine's architecture in target/dist, without Docker; ends with its smoke test
	deploy/release.sh image

release: ## static binaries, images, SBOM, change log and checksums in target/dist
	deploy/release.sh

pgo: ## a profile-guided build for this machine in target/pgo; takes minutes, installs llvm-tools of rustup if missing
	deploy/pgo.sh

bench: tools ## the table of ratios beside servers that decide nothing; ARGS="--ablate", ARGS=--help
	cargo build --release --bins --example bare
	@cargo bench --bench table -- $(ARGS)

bench-micro: ## what single steps and the stores cost
	cargo bench --bench core --bench stores

tools: ## install what the tests and the demo need
	deploy/tools.sh
