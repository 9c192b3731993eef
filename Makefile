# Causeway. `make help` lists what there is.
SHELL := /bin/bash
GO ?= go
GOLANGCI := $(GO) tool -modfile=.ci/tools/golangci-lint.mod golangci-lint
BUF := $(GO) tool -modfile=../.ci/tools/buf.mod buf
# Packages with goldens take -update.
GOLDEN := ./federation/resolve ./federation/explain ./xds/translate ./cmd/causeway/client ./cluster/file

# package:target, fuzzed one after the other, and for how long each.
FUZZ := ./cluster/file:FuzzReader ./federation/record:FuzzDecode ./federation/record:FuzzJSON ./federation/resolve:FuzzResolve ./xds/server:FuzzTranslate
FUZZTIME ?= 20s
# Worlds that the real Envoy looks at afterwards, made up and found.
WORLDS ?= 100

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/causeway
	@$(GO) build -ldflags "-X main.version=$(VERSION)" -o bin/causeway ./cmd/causeway

# What images are tagged with, and what `causeway version` says.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Where they go.
OUT ?= dist

# Which of them.
IMAGES ?= causeway,causeway-envoy,causeway-test

.PHONY: images
images: ## Container images without Docker: dist/causeway*-VERSION.tar, the same bytes from the same source
	@CAUSEWAY_ENVOY="$$(.ci/envoy)" $(GO) run ./deploy/images -version $(VERSION) -out $(OUT) -only $(IMAGES)

.PHONY: envoy
envoy: ## Fetch the real Envoy, pinned, into the cache (unless $$CAUSEWAY_ENVOY or PATH has one)
	@.ci/envoy

.PHONY: demo
demo: ## Three clusters, real etcd, real Envoys, real requests; about a minute once built
	@echo "building causeway (the first time takes a few minutes)"
	@$(GO) build -o bin/causeway ./cmd/causeway && $(GO) build -o bin/demo ./test/demo && $(GO) build -modfile=.ci/tools/grpcurl.mod -o bin/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
	@CAUSEWAY_ENVOY="$$(.ci/envoy)" bin/demo

.PHONY: test
test: ## All tests that need no root: unit, golden, property, real etcd, real Envoy
	@CAUSEWAY_ENVOY="$$(.ci/envoy)" $(GO) test -timeout 25m ./...
	@for d in $(SUITES); do cd $(CURDIR)/$$d && $(GO) test ./... || exit 1; done

.PHONY: check
check: fmt lint generated race ## Format, lint, generated code current, import directions, race tests, a little fuzzing
	@$(MAKE) -s fuzz FUZZTIME=5s WORLDS=40

.PHONY: fmt
fmt:
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$$')); test -z "$$out" || { echo "not formatted, run gofmt -w:"; echo "$$out"; exit 1; }

.PHONY: lint
lint: ## golangci-lint, pinned
	@$(GO) vet ./... && $(GOLANGCI) run ./...
	@for d in $(SUITES); do cd $(CURDIR)/$$d && $(GO) vet ./... && $(GO) tool -modfile=$(CURDIR)/.ci/tools/golangci-lint.mod golangci-lint run ./... || exit 1; done

.PHONY: race
race: ## Tests under the race detector (real etcd and Envoy included)
	@CAUSEWAY_ENVOY="$$(.ci/envoy)" $(GO) test -race -timeout 40m ./...

.PHONY: fuzz
fuzz: ## Fuzz reader, decoder, resolver and translator, FUZZTIME each; then Envoy judges what came out
	@for t in $(FUZZ); do $(GO) test $${t%:*} -run '^$$' -fuzz "^$${t#*:}$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x || exit 1; done
	@CAUSEWAY_ENVOY="$$(.ci/envoy)" $(GO) test ./xds/server -run TestEnvoyTakesWhatIsMade -count 1 -timeout 1h -worlds $(WORLDS) -seed $$RANDOM \
	  -corpus "$$($(GO) env GOCACHE)/fuzz/$$($(GO) list ./xds/server)/FuzzTranslate"

.PHONY: generate
generate: ## Generated code: protobuf, CRDs, the chart's roles
	@cd api && $(BUF) generate
	@$(GO) generate ./cluster/...
	@$(GO) run ./deploy/rbac

.PHONY: generated
generated: ## Fail if generated code is not current
	@tmp=$$(mktemp -d) && trap 'rm -rf $$tmp' EXIT && cp -r api cluster deploy $$tmp/ && $(MAKE) -s generate && \
	  for d in api cluster deploy; do diff -r $$tmp/$$d $$d >/dev/null || { echo "generated code in $$d was not current; it is now: commit it"; exit 1; }; done
	@cd api && $(BUF) lint

.PHONY: golden
golden: ## Rewrite the goldens; review the diff
	@$(GO) test $(GOLDEN) -run Golden -update

# Real clusters for `make lab`.
CLUSTERS ?= 2
# Packages with tests that need it.
E2E ?= $(if $(CAUSEWAY_E2E_KUBECONFIGS),,./test/lab/... ./deploy/images) ./test/conformance/... ./test/gateways ./test/e2e

.PHONY: lab
lab: ## Start CLUSTERS real Kubernetes clusters on this machine, without Docker (root; ten minutes the first time)
	@$(GO) run ./test/lab/cmd/lab up -clusters $(CLUSTERS)

.PHONY: lab-down
lab-down: ## Stop them; nothing is left
	@$(GO) run ./test/lab/cmd/lab down

.PHONY: lab-build
lab-build: ## Build the Kubernetes of `make lab` and of tests with an API server, into the cache (no root)
	@$(GO) run ./test/lab/cmd/lab build

# What tests on clusters run in pods. One make builds it once for all its targets.
.PHONY: e2e-images
e2e-images:
	@$(MAKE) -s images VERSION=e2e OUT=dist/e2e IMAGES=causeway,causeway-envoy,causeway-test,etcd

.PHONY: e2e
e2e: $(if $(CAUSEWAY_E2E_KUBECONFIGS),,lab-build) e2e-images ## End-to-end tests on real clusters (root), or on those of $$CAUSEWAY_E2E_KUBECONFIGS. E2E=./test/lab runs one package
	@CAUSEWAY_E2E_IMAGES=$(CURDIR)/dist/e2e $(GO) test -p 1 -timeout 40m -count 1 -v $(E2E)

# Runs of Gateway API's suite, and of tests like its, which are modules of their own; its
# tests and channels by regular expressions, and where reports of whole runs go.
SUITES := test/conformance/gateway test/conformance/federation
RUN ?= .
CHANNEL ?= .
REPORTS ?= docs/conformance

.PHONY: conformance
conformance: lab-build e2e-images ## Gateway API's own conformance suite on a real cluster (root). RUN=HTTPRouteCORS: a part; CHANNEL=standard
	@cd test/conformance/gateway && CAUSEWAY_E2E_IMAGES=$(CURDIR)/dist/e2e $(GO) test -timeout 40m -parallel 8 -count 1 -run '^TestGatewayAPI$$/$(CHANNEL)/^tests$$/$(RUN)' -args -reports $(abspath $(REPORTS))

.PHONY: conformance-federation
conformance-federation: lab-build e2e-images ## Tests like its, of ServiceImports as backends, on two clusters (root). RUN=TLS: a part
	@cd test/conformance/federation && CAUSEWAY_E2E_IMAGES=$(CURDIR)/dist/e2e $(GO) test -timeout 30m -parallel 4 -count 1 -run '^TestFederation$$/$(RUN)'

.PHONY: bench
bench: ## How fast and how large: the real path with 100 proxies, against its goals; some 5 minutes
	@$(GO) build -o bin/bench ./test/bench && bin/bench

.PHONY: bench-scale
bench-scale: ## The part of it with 100 clusters
	@$(GO) build -o bin/bench ./test/bench && bin/bench -only scale

.PHONY: bench-micro
bench-micro: ## Benchmarks of single packages, for comparing before and after
	@$(GO) test -run '^$$' -bench . -benchmem ./federation/... ./xds/...
