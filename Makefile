# Names of commands, no logic: what takes more than one line is Rust, in crates/xtask.

.PHONY: help run test lint kafka ci bench openapi

help: ## list these commands
	@sed -n 's/^\([a-z]*\): ## /  make \1	/p' $(MAKEFILE_LIST)

run: ## build the release executable and start it with the demo
	cargo run --release --package gatewright -- up --demo

test: ## provide what the tests need, then run every test
	cargo xtask test-dependencies
	cargo build --workspace
	cargo test --workspace

lint: ## formatting, lints, documentation, and the gateway without a control plane
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo check --package gatewright --no-default-features --features gateway

kafka: ## build the logger for Kafka, and test it against a cluster that its library simulates
	cargo xtask kafka

ci: ## exactly what CI runs
	$(MAKE) lint
	$(MAKE) test
	$(MAKE) kafka

bench: ## measure the release executable against its peers (bench/README.md)
	cargo xtask bench --write

openapi: ## write openapi.json from the admin API's code
	cargo xtask openapi
