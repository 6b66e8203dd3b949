# The verbs of this repository. `make test` is the one to know.

# The static binary is built for this machine, or for TARGET=aarch64-unknown-linux-gnu and the like.
TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
STATIC = target/$(TARGET)/dist/lizm
# Another with ZeroMQ in it, in a directory of its own, so that neither takes the other's place.
STATIC_ZEROMQ = target/zeromq/$(TARGET)/dist/lizm

# Everything in one file, with its code in the order of layout.ld, which has the names of the mangling v0. What moves with
# the addresses of a program is listed in the short form that glibc reads since 2.36. What a panic says of a dependency
# does not name this machine's directories.
STATIC_FLAGS = -C target-feature=+crt-static -C symbol-mangling-version=v0 -C link-arg=-Tlayout.ld \
  -C link-arg=-Wl,-z,pack-relative-relocs \
  --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=

# What the tests that are `#[ignore = "needs …"]` need, and the benchmarks: Debian packages, of which some have a command
# of the same name. The feature zeromq is built by g++.
TEST_TOOLS = chromium-driver collectd-core curl e2fsprogs fish g++ influxdb man-db mount msmtp nginx-full npm \
  openssl procps prometheus prometheus-alertmanager python3 python3-h11 python3-httpx python3-influxdb \
  python3-requests python3-selenium python3-venv python3-zmq redis-server sysstat tmux victoria-metrics wget zsh
BENCH_TOOLS = python3 e2fsprogs mount openssl wrk redis-server nginx victoria-metrics collectd-core prometheus-node-exporter g++
PAGE_TOOLS = python3 chromium-driver python3-selenium fonts-inter pngquant
DEPLOY_TOOLS = buildah debootstrap docker-compose iproute2 lintian nginx openssl procps python3-venv shellcheck systemd

# What looks at the page for the tests, from npm; what holds the API to docs/openapi.json, and a client, from PyPI.
AXE = target/axe/node_modules/axe-core/axe.min.js
PYTHON = target/python/ready

# How long `make soak` posts, and each target of `make fuzz` runs.
SOAK_MINUTES ?= 60
FUZZ_SEC ?= 900
FUZZ_TARGETS = alert_rules json_bodies lines paths promql tokens https_heads store_records kernel_files

.PHONY: build static static-zeromq layout test soak kills hostile fuzz deny bench screenshots bench-page deploy-check \
  release-check tarball deb tools lint

build:
	cargo build --release

static:
	RUSTFLAGS='$(STATIC_FLAGS)' cargo build --profile dist --target $(TARGET)
	@ls -l $(STATIC)

static-zeromq:
	RUSTFLAGS='$(STATIC_FLAGS)' cargo build --profile dist --target $(TARGET) --features zeromq \
	  --target-dir target/zeromq
	@ls -l $(STATIC_ZEROMQ)

# Writes layout.ld again, the order of the code in the static binary: worth it where the memory of a monitor has grown.
layout: TOOLS = valgrind python3
layout: tools
	RUSTFLAGS='$(STATIC_FLAGS) -C link-arg=-Wl,-Map=$(CURDIR)/target/layout.map' CARGO_PROFILE_DIST_STRIP=none \
	  cargo build --profile dist --target $(TARGET) --target-dir target/layout
	python3 -B deploy/layout.py target/layout/$(TARGET)/dist/lizm target/layout.map > target/layout.ld
	mv target/layout.ld layout.ld

test: TOOLS = $(TEST_TOOLS)
test: tools $(AXE) $(PYTHON)
	cargo test --all-features -- --include-ignored

$(PYTHON): Makefile | tools
	python3 -m venv target/python
	target/python/bin/pip install --quiet influxdb-client==1.50.0 prometheus-api-client==0.7.2 schemathesis==4.32.5 \
	  elasticsearch==9.5.1 opensearch-py==3.2.0 osmem-server==0.1.6
	touch $@

$(AXE): | tools
	npm install --silent --no-fund --no-audit --prefix target/axe axe-core@4.14.1

# 1,000 posts a second with a fault every 30 seconds; as root, for it mounts a small disk to fill and to freeze.
soak: TOOLS = python3 redis-server mount e2fsprogs faketime strace
soak: tools build
	python3 -B tests/soak/soak.py target/release/lizm --minutes $(SOAK_MINUTES)

# The long form of the ledger tests, of alerts and of archives, 200 kills each, and half a minute of a Redis that stands still.
kills: TOOLS = $(TEST_TOOLS)
kills: tools
	LIZM_TEST_KILLS=200 LIZM_TEST_STOPPED_SEC=30 cargo test --release --test product -- --include-ignored --nocapture \
	  durable::killed alert_kills archives::killed archives::of_two_receivers shared::two_services shared::a_redis_that_stands_still

# Sends each entry of the hostile corpus 1,000 times to the static binary, and floods it with 2,000,000 names;
# sends 100,000 generated requests to both HTTP servers.
hostile: static
	LIZM_TEST_BINARY=$(CURDIR)/$(STATIC) LIZM_TEST_HOSTILE=1000 LIZM_TEST_FLOOD=1000000 \
	LIZM_TEST_CONNECTIONS=5000 LIZM_TEST_HOLD_SEC=600 LIZM_TEST_GENERATED=100000 \
	  cargo test --release --test product -- --nocapture hostile:: differential::

# Runs the fuzzer, which needs a nightly and cargo-fuzz (cargo install cargo-fuzz). What it adds to the corpus stays in
# target/fuzz; of it, what is short and reaches a line that nothing else does is worth to be committed.
fuzz:
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p target/fuzz/$$target && \
	  cargo +nightly fuzz run $$target target/fuzz/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SEC) -rss_limit_mb=2048 -timeout=25 || exit 1; \
	done

# Asks cargo-deny (cargo install cargo-deny) for advisories, which it fetches, bans, licences and sources: see deny.toml.
deny:
	cargo deny check

# Measures the static binaries beside its peers, and writes BENCHMARKS.md.
bench: TOOLS = $(BENCH_TOOLS)
bench: tools static static-zeromq
	python3 -B bench/run.py $(STATIC) $(STATIC_ZEROMQ)

# Takes pictures of the dashboard, on a phone and a desktop, light and dark, into docs/pictures; the README shows one.
screenshots: TOOLS = $(PAGE_TOOLS)
screenshots: tools build
	/usr/bin/python3 -B tests/browser/screenshots.py target/release/lizm docs/pictures

# Says what the dashboard costs the wire, the receiver and the browser, each figure beside its bar.
bench-page: TOOLS = $(PAGE_TOOLS) npm
bench-page: tools build $(AXE)
	/usr/bin/python3 -B tests/browser/figures.py target/release/lizm $(AXE)

# Checks the image, compose, the units, nginx and Terraform by the programs that read them; as root, in some minutes.
deploy-check: TOOLS = $(DEPLOY_TOOLS)
deploy-check: tools static
	python3 deploy/check/image.py $(STATIC)
	[ -e target/deploy-root/done ] || { rm -rf target/deploy-root && \
	  debootstrap --variant=minbase --include=systemd,ca-certificates bookworm target/deploy-root && \
	  touch target/deploy-root/done; }
	[ -e target/deploy-venv/done ] || { python3 -m venv target/deploy-venv && \
	  target/deploy-venv/bin/pip install --quiet 'python-hcl2 >=4, <9' 'pyyaml >=6, <7' \
	  'kubernetes-validate >=1.35' && touch target/deploy-venv/done; }
	target/deploy-venv/bin/python deploy/check/files.py $(STATIC) target/deploy-root

# Says what keeps the version from being released, and writes checksums: see RELEASE.md.
release-check: static
	python3 deploy/check/release.py $(STATIC)

# The static binary with units, docs, manual pages and completions, as a tarball and as a package of Debian.
tarball: static
	deploy/package.sh tarball $(STATIC) target/packages

deb: static
	deploy/package.sh deb $(STATIC) target/packages

# Installs what is missing; as root, or by sudo.
tools:
	@missing=; for tool in $(TOOLS); do \
	  command -v $$tool >/dev/null || dpkg -s $$tool >/dev/null 2>&1 || missing="$$missing $$tool"; \
	done; \
	if [ -n "$$missing" ]; then \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -q && $$sudo apt-get install -qy --no-install-recommends $$missing; \
	fi

lint: TOOLS = g++
lint: tools
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	cargo clippy --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --all-features --document-private-items
