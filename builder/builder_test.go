// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kaniko-go/kaniko-go/builder/internal/buildcontext"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/fetch"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// house is a builder with a registry of its own, which counts what it is asked.
type house struct {
	*Builder
	host string
	log  *observer.ObservedLogs

	mu       sync.Mutex
	requests []string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{}
	inner := ggcr.New(ggcr.Logger(stdlog.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, r.Method+" "+r.URL.Path)
		h.mu.Unlock()
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	h.host = strings.TrimPrefix(srv.URL, "http://")
	core, logs := observer.New(zap.InfoLevel)
	h.log = logs
	l := NewLog(zap.New(core), nil)
	client, err := registry.New(registry.Options{Progress: TransferProgress(l)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	h.Builder = &Builder{Registry: client, Log: l, Isolation: isolation.Status{Reason: errors.New("not in this test")}}
	return h
}

// context makes a directory of files; a name with ! before it is executable.
func contextDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (h *house) request(t *testing.T, files map[string]string) Request {
	t.Helper()
	epoch := time.Unix(1_000_000_000, 0)
	return Request{
		Context: contextDir(t, files), Dockerfile: "Dockerfile", Epoch: &epoch, Dir: t.TempDir(),
		Output: Output{Destinations: []string{h.host + "/out:1"}, Compression: "gzip"},
	}
}

// build builds and returns the image as the registry has it.
func (h *house) build(t *testing.T, r Request) v1.Image {
	t.Helper()
	res, err := h.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	client, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	img, err := client.Resolve(t.Context(), r.Output.Destinations[0], registryPlatform(localPlatform()))
	if err != nil {
		t.Fatal(err)
	}
	if img.Digest != res.Digest {
		t.Errorf("the registry has %s, the result says %s", img.Digest, res.Digest)
	}
	if err := validate.Image(img.Image); err != nil {
		t.Error(err)
	}
	return img.Image
}

// contents lists the files of an image with their bytes.
func contents(t *testing.T, img v1.Image) string {
	t.Helper()
	r := mutate.Extract(img)
	defer func() { _ = r.Close() }()
	var out []string
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			sort.Strings(out)
			return strings.Join(out, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		line := hdr.Name
		if hdr.Typeflag == tar.TypeReg {
			b, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			line += "=" + string(b)
		} else {
			line = strings.TrimSuffix(line, "/") + "/"
		}
		out = append(out, line)
	}
}

func TestBuildWithoutRun(t *testing.T) {
	h := newHouse(t)
	r := h.request(t, map[string]string{
		"Dockerfile": `
FROM scratch AS parts
COPY a /in/
COPY d /in/d/
FROM scratch
ENV X=1
WORKDIR /w
COPY --from=parts /in/d/* ./
COPY --from=0 /in/a /top
COPY <<EOF /text
value $X
EOF
`, "a": "A", "d/b": "B", "d/c": "C", "unused/x": "never read",
	})
	img := h.build(t, r)
	if d := cmp.Diff("text=value 1\n top=A w/ w/b=B w/c=C", contents(t, img)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if again := h.build(t, r); digest(t, again) != digest(t, img) {
		t.Error("the same inputs gave another digest")
	}
	left, err := os.ReadDir(r.Dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func digest(t *testing.T, img v1.Image) v1.Hash {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBaseThatNobodyReadsIsNotDownloaded(t *testing.T) {
	h := newHouse(t)
	base := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "A"})
	base.Output.Destinations = []string{h.host + "/base:1"}
	h.build(t, base)
	h.requests = nil
	r := h.request(t, map[string]string{"Dockerfile": "FROM " + h.host + "/base:1\nLABEL a=b\nUSER 5\n"})
	if _, err := h.Build(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	blobs := 0
	for _, q := range h.requests {
		if strings.HasPrefix(q, "GET /v2/base/blobs/") {
			blobs++
		}
	}
	if blobs != 1 {
		t.Errorf("%d blobs of the base were downloaded, want its configuration alone: %q", blobs, h.requests)
	}
}

func TestFailures(t *testing.T) {
	h := newHouse(t)
	file := func(s string) map[string]string { return map[string]string{"Dockerfile": s, "a": "A"} }
	tests := []struct {
		name  string
		files map[string]string
		code  int
		cause string
	}{
		{"no Dockerfile", map[string]string{"a": ""}, ExitConfig, "dockerfile Dockerfile: file does not exist"},
		{"syntax", file("FROM scratch\nCOPIED a b\n"), ExitDockerfile, "Dockerfile:2: unknown instruction: COPIED"},
		{"missing source", file("FROM scratch\n\nCOPY nope /\n"), ExitInstruction, `Dockerfile:3: COPY: "/nope": not found`},
		{"unknown owner", file("FROM scratch\nCOPY --chown=me a /\n"), ExitInstruction, `Dockerfile:2: COPY: --chown=me: invalid user index: -1`},
		{"base not found", file("FROM " + h.host + "/nope\n"), ExitRefused, "404 Not Found"},
		{"RUN where it cannot", file("FROM scratch\nRUN x\n"), ExitEnvironment, "Dockerfile:2: RUN cannot be isolated here"},
		{"whiteout name", map[string]string{"Dockerfile": "FROM scratch\nCOPY d /d/\n", "d/.wh.x": ""}, ExitInstruction, "Dockerfile:2: COPY: /d/.wh.x"},
		{"ignore file", map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", ".dockerignore": "a[", "a": ""}, ExitConfig, ".dockerignore"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := h.request(t, tt.files)
			r.Output.Destinations = []string{h.host + "/failed:1"}
			_, err := h.Build(t.Context(), r)
			if err == nil {
				t.Fatal("no error")
			}
			if code := ExitCode(err); code != tt.code || !strings.Contains(Cause(err), tt.cause) {
				t.Errorf("exit code %d, cause %q; want %d, %q", code, Cause(err), tt.code, tt.cause)
			}
			if strings.Contains(Cause(err), "\n") {
				t.Errorf("the cause has several lines: %q", Cause(err))
			}
			left, err := os.ReadDir(r.Dir)
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.requests {
		if strings.HasPrefix(q, "PUT /v2/failed/manifests/") {
			t.Errorf("a failed build pushed: %s", q)
		}
	}
}

func TestRunForAnotherMachine(t *testing.T) {
	h := newHouse(t)
	r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\nRUN x\n"})
	r.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}
	_, err := h.Build(t.Context(), r)
	if ExitCode(err) != ExitDockerfile || !strings.Contains(Cause(err), "Dockerfile:3: RUN in stage stage-0 needs a machine for linux/s390x") {
		t.Errorf("exit code %d, %v", ExitCode(err), err)
	}
}

func TestExitCode(t *testing.T) {
	place := func(err error) error { return &dockerfile.Error{File: "Dockerfile", Err: err} }
	instruction := func(err error) error { return place(&instructionError{text: "COPY a b", err: err}) }
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"anything", errors.New("x"), ExitInternal},
		{"Dockerfile", place(errors.New("x")), ExitDockerfile},
		{"instruction", instruction(errors.New("x")), ExitInstruction},
		{"disk full in an instruction", instruction(fmt.Errorf("write: %w", syscall.ENOSPC)), ExitEnvironment},
		{"network in an instruction", instruction(&registry.Error{Class: registry.Transient}), ExitNetwork},
		{"refused base", place(&registry.Error{Class: registry.Refused}), ExitRefused},
		{"platform of a base", place(&registry.Error{Class: registry.Unsupported}), ExitDockerfile},
		{"corrupt layer", instruction(fmt.Errorf("layer: %w", layer.ErrIntegrity)), ExitIntegrity},
		{"corrupt manifest", place(&registry.Error{Class: registry.Integrity}), ExitIntegrity},
		{"isolation", place(&environmentError{errors.New("x")}), ExitEnvironment},
		{"output", &outputError{"KANIKO_TAR_PATH", errors.New("x")}, ExitEnvironment},
		{"RUN", instruction(&commandError{args: []string{"a"}, exit: &isolation.ExitError{Code: 7}}), ExitInstruction},
		{"context", &setupError{errors.New("x")}, ExitConfig},
		{"context that changed", instruction(fmt.Errorf("a: %w", buildcontext.ErrChanged)), ExitNetwork},
		{"login that ended meanwhile", instruction(fmt.Errorf("%w: %w", buildcontext.ErrAgain, &fetch.Error{Status: 403, Refused: true})), ExitRefused},
		{"ADD of what needs a login", instruction(&fetch.Error{Status: 403, Refused: true}), ExitInstruction},
	}
	for _, tt := range tests {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("%s: exit code %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestCauseOfAFullDisk(t *testing.T) {
	full := fmt.Errorf("write: %w", syscall.ENOSPC)
	for want, err := range map[string]error{"KANIKO_DIR": full, "KANIKO_TAR_PATH": &outputError{"KANIKO_TAR_PATH", full}} {
		if got := Cause(err); !strings.HasSuffix(got, ": the disk is full; give "+want+" a larger volume") {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

func TestOutputs(t *testing.T) {
	h := newHouse(t)
	r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "A"})
	out := t.TempDir()
	r.Output.Destinations = []string{h.host + "/x/one:1", h.host + "/y/two:2", h.host + "/x/one:other"}
	r.Output.Layout, r.Output.Tarball = filepath.Join(out, "layout"), filepath.Join(out, "image.tar")
	res, err := h.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r.Output.Destinations, res.Destinations); d != "" {
		t.Errorf("destinations (-want +got):\n%s", d)
	}
	// A second build into the same layout replaces the first.
	if _, err := h.Build(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	idx, err := layout.ImageIndexFromPath(r.Output.Layout)
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Digest != res.Digest {
		t.Errorf("layout: %v, %v", m, err)
	}
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(r.Output.Tarball); err != nil || st.Mode() != 0o644 {
		t.Errorf("tarball: %v, %v", st, err)
	}
}

// TestOutputsInTheWay gives outputs that cannot be written: the build must say so before it does anything.
func TestOutputsInTheWay(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, layout, tarball, want string }{
		{"layout", file, "", "OCI layout " + file + " cannot be written: " + file + " is not a directory"},
		{"tarball", "", dir, "tarball " + dir + " cannot be written: it is a directory; give the name of a file"},
		{"tarball below a file", "", file + "/x.tar", "tarball " + file + "/x.tar cannot be written: " + file + " is not a directory"},
		{"no permission", "/proc/self", "", "OCI layout /proc/self cannot be written: directory /proc/self: "}, // not even by root
	} {
		r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY nope /\n"})
		r.Output.Layout, r.Output.Tarball = tt.layout, tt.tarball
		_, err := h.Build(t.Context(), r)
		if err == nil || ExitCode(err) != ExitEnvironment || !strings.HasPrefix(Cause(err), tt.want) {
			t.Errorf("%s: exit code %d, %v; want %q", tt.name, ExitCode(err), err, tt.want)
		}
	}
	r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nLABEL a=b\n"})
	r.Output.NoPush, r.Output.Tarball = true, filepath.Join(dir, "a", "b", "x.tar")
	if _, err := h.Build(t.Context(), r); err != nil {
		t.Errorf("a directory that can be made: %v", err)
	}
}

func TestSeveralPlatforms(t *testing.T) {
	h := newHouse(t)
	r := h.request(t, map[string]string{"Dockerfile": `
FROM --platform=$BUILDPLATFORM scratch AS build
ARG TARGETARCH
COPY bin-$TARGETARCH /bin
FROM scratch
COPY --from=build /bin /bin
`, "bin-amd64": "for amd64", "bin-arm64": "for arm64"})
	r.Platforms = []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
	r.Output.Layout = filepath.Join(t.TempDir(), "layout")
	res, err := h.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	top, err := layout.ImageIndexFromPath(r.Output.Layout)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Error(err)
	}
	idx, err := top.ImageIndex(res.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Platforms {
		img, err := h.Registry.Resolve(t.Context(), r.Output.Destinations[0], registryPlatform(p))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff("bin=for "+p.Architecture, contents(t, img.Image)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if c, err := img.ConfigFile(); err != nil || c.Architecture != p.Architecture {
			t.Errorf("%v, %v", c, err)
		}
		if _, err := idx.Image(img.Digest); err != nil {
			t.Error(err)
		}
	}
}

func TestIndexOfOne(t *testing.T) {
	h := newHouse(t)
	r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "A"})
	r.BuildArgs = map[string]string{"BUILDKIT_MULTI_PLATFORM": "1"}
	r.Output.Layout = filepath.Join(t.TempDir(), "layout")
	res, err := h.Build(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	top, err := layout.ImageIndexFromPath(r.Output.Layout)
	if err != nil {
		t.Fatal(err)
	}
	if idx, err := top.ImageIndex(res.Digest); err != nil {
		t.Error(err)
	} else if m, err := idx.IndexManifest(); err != nil || len(m.Manifests) != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

func TestCancel(t *testing.T) {
	h := newHouse(t)
	r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "A"})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := h.Build(ctx, r); err == nil {
		t.Error("a cancelled build succeeded")
	}
}

func TestDryRun(t *testing.T) {
	h := newHouse(t)
	r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /\n"})
	var plan strings.Builder
	r.DryRun = &plan
	res, err := h.Build(t.Context(), r)
	if err != nil || res != nil {
		t.Fatalf("%v, %v", res, err)
	}
	if !strings.Contains(plan.String(), "COPY a /") {
		t.Errorf("plan:\n%s", plan.String())
	}
	for _, q := range h.requests {
		if !strings.HasPrefix(q, "GET ") && !strings.HasPrefix(q, "HEAD ") {
			t.Errorf("a dry run sent %s", q)
		}
	}
}
