# kaniko-go. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Asked once: the tree may change while make runs.
ifndef VERSION
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
endif
# Of the commit, so that whoever builds it gets the same bytes.
ifndef EPOCH
EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
endif
# The binaries that are published, and the platforms of the images.
ARCHES := amd64 arm64 s390x ppc64le riscv64
IMAGE_ARCHES := amd64 arm64
# Where everything that is published is made.
DIST ?= dist
comma := ,
FUZZTIME ?= 30s
TESTFLAGS ?=
# The oracles' seed; CI has a fixed one, so that it judges a change and not luck: make oracle SEED='-seed 7'
SEED ?=
# In CI nothing may be skipped: make test NOSKIP=-no-skip
NOSKIP ?=

.PHONY: help build test lint generate golden fuzz e2e e2e-corpus corpus-fifth e2e-cache full-cache oracle full-oracle full-corpus full-hostile full-contexts full-faults e2e-pods full-pods \
  cluster cluster-up cluster-down e2e-cluster full-cluster bench demo \
  cross images size release catalog dist bundle e2e-bundle clean force

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the static binary, bin/kaniko-go
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kaniko-go ./step

test: build ## all tests; what this machine cannot do is skipped with the reason
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -json -timeout 30m $(TESTFLAGS) ./... | go run ./e2e/report $(NOSKIP)

e2e: build ## only the tests of the built binary
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -json -count=1 -timeout 15m $(TESTFLAGS) ./e2e/... | go run ./e2e/report $(NOSKIP)

e2e-corpus: build ## every Dockerfile of the corpus against what BuildKit made, a fifth of that made anew
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 30m $(TESTFLAGS) ./e2e/corpus -buildkit fifth

e2e-pods: build ## in containers as a kubelet starts them (runc, seccomp, user namespaces): a sample
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 15m -v $(TESTFLAGS) ./e2e/pods | grep -E '^(ok|FAIL|---)|^    [a-z]+_test.go|^        '

full-pods: build ## 60 Dockerfiles in every kind of pod, a thief, daemons, signals, 1200 kills (an hour)
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 120m -v $(TESTFLAGS) ./e2e/pods -full | grep -E '^(ok|FAIL|---)|^    [a-z]+_test.go|^        '

cluster: ## compile what a Kubernetes with Tekton and Argo Workflows consists of; once, at most 40 minutes, then 75 and the next call goes on
	e2e/cluster/packages.sh
	go build -o bin/cluster ./e2e/cluster/manage
	bin/cluster build

cluster-up: build cluster ## start it, with this binary's image; bin/cluster kubectl asks it
	bin/cluster up

cluster-down: ## end it, and remove everything but its programs
	go build -o bin/cluster ./e2e/cluster/manage
	bin/cluster down

# A cluster that was up before stays up: for work on the tests.
e2e-cluster: build cluster ## tasks and templates on that cluster: what works, and the failures that people meet
	bin/cluster state 2>/dev/null || trap 'bin/cluster down' EXIT; bin/cluster up; \
	go test -tags cluster -count=1 -timeout 20m -parallel 4 $(TESTFLAGS) ./e2e/cluster

full-cluster: build cluster ## the same and all that takes long (40 minutes with everything to be compiled)
	bin/cluster state 2>/dev/null || trap 'bin/cluster down' EXIT; bin/cluster up; \
	go test -tags cluster -count=1 -timeout 40m -parallel 4 -v $(TESTFLAGS) ./e2e/cluster -full | grep --line-buffered -E '^(ok|FAIL|PASS|---|    ---)|^ +[a-z]+_test.go|^        '

corpus-fifth: build ## only that fifth, only by BuildKit: does it still make what the repository says?
	e2e/packages.sh
	go test -count=1 -timeout 30m ./e2e/corpus -buildkit fifth -kaniko-go=false

full-corpus: build ## the same with all of it made anew (half an hour)
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 60m $(TESTFLAGS) ./e2e/corpus -buildkit all

e2e-cache: build ## the layer cache: requests, edits, random changes, damage, races; a sample
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 15m $(TESTFLAGS) ./e2e/cache
	go test -count=1 -timeout 15m -run 'TestDamagedCache|TestEvicted' ./builder

full-cache: build ## all of it: 2000 random changes, the corpus after each edit, 10 000 damages (two hours)
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 120m -v $(TESTFLAGS) ./e2e/cache -full | grep -E '^(ok|FAIL|---)|^    [a-z]+_test.go|^        '
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 90m -v -run TestCorpusCached ./e2e/corpus -cached | grep -E '^(ok|FAIL|---)|^    [a-z]+_test.go|^        '
	go test -count=1 -timeout 90m -v -run 'TestDamagedCache|TestEvicted' ./builder -cache-damages 5000

oracle: ## random Dockerfiles and copies against BuildKit's own code, in modules apart
	cd e2e/oracle && go vet ./... && go test -count=1 -timeout 10m ./... $(SEED)
	cd e2e/copyoracle && go vet ./... && go test -count=1 -timeout 10m ./... $(SEED)

full-oracle: ## ten times as many
	cd e2e/oracle && go test -count=1 -timeout 30m ./... -cases 30000
	cd e2e/copyoracle && go test -count=1 -timeout 30m ./... -cases 20000

# The linter's cache remembers paths, so every checkout has its own.
lint: ## gofmt, go vet, golangci-lint (compiled once, at a pinned version)
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not gofmted: $$unformatted" >&2; exit 1; }
	go vet ./...
	GOLANGCI_LINT_CACHE="$${XDG_CACHE_HOME:-$$HOME/.cache}/kaniko-go/lint$(CURDIR)" "$$(.ci/tool golangci-lint)" run --allow-parallel-runners --build-tags cluster ./...

generate: ## everything that is generated from the configuration
	go generate ./...

golden: ## rewrite the expected plans and texts; look at the diff
	go test ./builder/internal/plan -update

fuzz: ## every fuzz target for FUZZTIME each
	.ci/fuzz $(FUZZTIME)

full-hostile: build ## all hostile layers, images and contexts; thousands of ugly but legal ones against umoci
	e2e/packages.sh
	go test -count=1 -timeout 30m ./builder/internal/unpack -v -run 'TestHostileLayers|TestHand|TestModes|TestSparse' -hostile.every 1 | grep -v '^=== '
	go test -count=1 -timeout 30m ./builder/internal/unpack -run TestTwin -hostile.twins 2000
	go test -count=1 -timeout 30m ./builder/internal/layer ./builder/internal/snapshot ./builder/registry ./results
	go test -count=1 -timeout 30m ./builder -v -run 'TestCorruption' | grep -v '^=== '
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 60m ./e2e/hostile -v -hostile.sample 60 | grep -v -e '^=== ' -e '    --- PASS'

full-contexts: build ## build contexts from every kind of server, also 2 GiB in every compression and from S3, and a million files (half an hour)
	e2e/packages.sh
	KANIKO_GO_BINARY=$(CURDIR)/bin/kaniko-go go test -count=1 -timeout 60m -v $(TESTFLAGS) ./e2e/contexts -full | grep -E '^(ok|FAIL|---)|^    [a-z0-9]+_test.go|^        '

full-faults: ## a registry that fails: every request, every fault, 20 seeds; and the specification's conformance suite (ten minutes)
	go test -count=1 -timeout 60m -v ./e2e/faults -full | grep -E '^(ok|FAIL|---)|^    [a-z]+_test.go|^        '

bench: build ## compare with BuildKit and buildah (root, half an hour); writes docs/benchmarks.md
	e2e/packages.sh
	go run ./e2e/bench -o docs/benchmarks.md $(BENCHFLAGS)

demo: build ## build and push an example; needs nothing but Go
	go run ./e2e/demo

$(DIST)/linux-%/kaniko-go: force
	CGO_ENABLED=0 GOOS=linux GOARCH=$* go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./step

cross: $(ARCHES:%=$(DIST)/linux-%/kaniko-go) ## the binaries for all architectures, below dist

images: build $(IMAGE_ARCHES:%=$(DIST)/linux-%/kaniko-go) ## the step images, plain and debug, as OCI layouts below dist; built by kaniko-go
	go run ./release images -dist $(DIST) -arch $(subst $() ,$(comma),$(IMAGE_ARCHES)) -version $(VERSION) -revision "$(REVISION)" -epoch $(EPOCH)

size: build ## what each dependency costs; writes docs/size.md
	mkdir -p $(DIST)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $(DIST)/with-symbols ./step
	go run ./release costs -o docs/size.md $(DIST)/with-symbols

release: cross images ## everything that is published, below dist, and what a maintainer does with it
	for arch in $(ARCHES); do go run ./release sbom -version $(VERSION) -epoch $(EPOCH) -o $(DIST)/kaniko-go-linux-$$arch.spdx.json $(DIST)/linux-$$arch/kaniko-go; done
	for image in plain debug; do tar --sort=name --mtime=@$(EPOCH) --owner=0 --group=0 --numeric-owner -C $(DIST) -cf $(DIST)/$$image.oci.tar $$image.oci; done
	cp THIRD_PARTY_NOTICES LICENSE $(DIST)/
	go run ./release sums $(DIST)/linux-*/kaniko-go $(DIST)/*.spdx.json $(DIST)/*.oci.tar $(DIST)/THIRD_PARTY_NOTICES $(DIST)/LICENSE
	@sed 's/VERSION/$(VERSION)/g' release/publish.txt

catalog: ## catalog.yaml and everything else that is generated for Tekton and Argo
	go generate ./tasks

dist: images ## what catalogues take, below dist: catalog.yaml, resources.tar.gz, tektoncd/catalog's layout, Argo's manifests; with digests
	go run ./release dist -dist $(DIST) -version $(VERSION) -epoch $(EPOCH)

bundle: dist ## push a Tekton bundle: make bundle BUNDLE=REFERENCE
	@[ -n "$(BUNDLE)" ] || { echo "usage: make bundle BUNDLE=REFERENCE" >&2; exit 2; }
	go run ./release bundle -dist $(DIST) -epoch $(EPOCH) $(BUNDLE)

e2e-bundle: ## the bundle, by the code of Tekton's resolver, in a module apart
	cd e2e/bundle && go vet ./... && go test -count=1 -timeout 10m ./...

clean: ## remove what make made here
	rm -rf bin dist
