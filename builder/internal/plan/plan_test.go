// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

func parse(t *testing.T, source string) *dockerfile.File {
	t.Helper()
	file, err := dockerfile.Parse("Dockerfile", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func request(resolve ResolveFunc) Request {
	amd64 := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	return Request{BuildPlatform: amd64, Platform: amd64, Resolve: resolve}
}

func emptyBase(_ context.Context, ref string, platform ocispec.Platform) (*Image, error) {
	return &Image{Ref: ref, Config: emptyImage(platform)}, nil
}

func TestResolveAsksOnceAndOnlyForWhatIsNeeded(t *testing.T) {
	file := parse(t, `
FROM unneeded AS a
FROM base AS b
FROM base AS c
FROM --platform=linux/arm64 base AS d
FROM docker.io/library/base:latest
COPY --from=b x /
COPY --from=c x /
COPY --from=d x /
COPY --from=base x /
COPY --from=tool x /
COPY --from=tool:latest y /
`)
	var mu sync.Mutex
	var asked []string
	_, err := New(t.Context(), file, request(func(ctx context.Context, ref string, platform ocispec.Platform) (*Image, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, ref+" "+platforms.FormatAll(platform))
		return emptyBase(ctx, ref, platform)
	}))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(asked)
	want := []string{
		"docker.io/library/base:latest linux/amd64",
		"docker.io/library/base:latest linux/arm64",
		"docker.io/library/tool:latest linux/amd64",
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
}

// TestResolveInParallel fails by its deadline if look-ups wait for each other.
func TestResolveInParallel(t *testing.T) {
	file := parse(t, "FROM a AS a\nFROM b AS b\nFROM c\nCOPY --from=a x /\nCOPY --from=b x /\n")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var together sync.WaitGroup
	together.Add(3)
	_, err := New(ctx, file, request(func(ctx context.Context, ref string, platform ocispec.Platform) (*Image, error) {
		together.Done()
		met := make(chan struct{})
		go func() { together.Wait(); close(met) }()
		select {
		case <-met:
			return emptyBase(ctx, ref, platform)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}))
	if err != nil {
		t.Error(err)
	}
}

type registryError struct{ host string }

func (e *registryError) Error() string { return "refused by " + e.host }

func TestResolveErrorKeepsItsType(t *testing.T) {
	file := parse(t, "FROM scratch\nCOPY --from=example.com/x /a /b\n")
	_, err := New(t.Context(), file, request(func(context.Context, string, ocispec.Platform) (*Image, error) {
		return nil, &registryError{host: "example.com"}
	}))
	var refused *registryError
	var located *dockerfile.Error
	if !errors.As(err, &refused) || !errors.As(err, &located) {
		t.Fatalf("got %v", err)
	}
	if got, want := err.Error(), "Dockerfile:2: example.com/x: refused by example.com"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithoutResolver(t *testing.T) {
	if _, err := New(t.Context(), parse(t, "FROM x\n"), request(nil)); err == nil {
		t.Error("no error")
	}
	if _, err := New(t.Context(), parse(t, "FROM scratch\n"), request(nil)); err != nil {
		t.Error(err)
	}
	if _, err := New(t.Context(), parse(t, "FROM scratch\n"), Request{}); err == nil {
		t.Error("a plan for no platform")
	}
}

// TestFileIsNotChanged plans one file many times at once, for two platforms;
// under the race detector it also proves that nothing is expanded in place.
func TestFileIsNotChanged(t *testing.T) {
	file := parse(t, `
ARG V=1
FROM x AS base
ARG V TARGETARCH
ENV A=$V B=$TARGETARCH
LABEL arch=$TARGETARCH
ONBUILD COPY <<EOF /onbuild
ONBUILD $TARGETARCH
EOF
FROM base
ARG TARGETARCH
COPY --chown=$A --chmod=0$V "$TARGETARCH" <<EOF /$TARGETARCH/
$TARGETARCH
EOF
WORKDIR /$TARGETARCH
USER $TARGETARCH
VOLUME /$TARGETARCH
EXPOSE $V
STOPSIGNAL $V
HEALTHCHECK CMD $V
RUN x
`)
	image := &Image{Ref: "x"}
	image.Config.Config.Labels = map[string]string{"a": "b"}
	resolve := func(ctx context.Context, _ string, _ ocispec.Platform) (*Image, error) {
		return image, ctx.Err()
	}
	plans := make([]string, 8)
	var wait sync.WaitGroup
	for i := range plans {
		wait.Go(func() {
			req := request(resolve)
			req.Platform.Architecture = []string{"amd64", "arm64"}[i%2]
			req.Labels = map[string]string{"n": strconv.Itoa(i % 2)}
			plan, err := New(t.Context(), file, req)
			if err != nil {
				t.Error(err)
				return
			}
			plans[i] = plan.String()
		})
	}
	wait.Wait()
	for i := 2; i < len(plans); i++ {
		if diff := cmp.Diff(plans[i%2], plans[i]); diff != "" {
			t.Errorf("plan %d differs: %s", i, diff)
		}
	}
	if plans[0] == plans[1] {
		t.Error("two platforms, one plan")
	}
	if diff := cmp.Diff(map[string]string{"a": "b"}, image.Config.Config.Labels); diff != "" {
		t.Errorf("the base was changed: %s", diff)
	}
}

func TestBudgets(t *testing.T) {
	chunk := strings.Repeat("x", 1000)
	var manyVariables, manyTriggers strings.Builder
	for i := range 1100 {
		fmt.Fprintf(&manyVariables, "ENV V%d=$chunk\n", i)
	}
	for range 1000 {
		manyTriggers.WriteString("ONBUILD RUN x\n")
	}
	for _, tc := range []struct{ name, source, want string }{
		{
			"environment", "FROM scratch\nENV chunk=" + chunk + "\n" + manyVariables.String(),
			"the limit is 1048576",
		},
		{
			"history", "FROM scratch\nARG a=" + strings.Repeat(chunk, 60) + "\n" + strings.Repeat("RUN x\n", 2000),
			"the build plan is larger than 64 MiB",
		},
		{
			"triggers", "FROM scratch AS a\n" + manyTriggers.String() + chain(900),
			"the build plan is larger than 64 MiB",
		},
		{
			"arguments before FROM", "ARG a=" + chunk + "\n" + strings.Repeat("ARG a=$a$a\n", 12) + "FROM scratch\n",
			`the expansion of "$a$a" is too large`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			_, err := New(t.Context(), parse(t, tc.source), request(emptyBase))
			if err == nil || !strings.HasPrefix(err.Error(), "Dockerfile:") || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %.300v, want %s", err, tc.want)
			}
			var located *dockerfile.Error
			if !errors.As(err, &located) || located.Excerpt() == "" {
				t.Error("the error names no line")
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// chain makes n stages on stage a, and a last one that needs them all.
func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "FROM a AS s%d\n", i)
	}
	b.WriteString("FROM scratch\n")
	for i := range n {
		fmt.Fprintf(&b, "COPY --from=s%d x /\n", i)
	}
	return b.String()
}

// TestLargestFile plans a Dockerfile at the limits of what is parsed.
func TestLargestFile(t *testing.T) {
	var b strings.Builder
	b.WriteString("FROM scratch\n")
	for i := range dockerfile.MaxInstructions - 1 {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&b, "ENV V%d=%d\n", i%300, i)
		case 1:
			fmt.Fprintf(&b, "RUN echo %d\n", i)
		default:
			fmt.Fprintf(&b, "COPY f%d /\n", i)
		}
	}
	began := time.Now()
	plan, err := New(t.Context(), parse(t, b.String()), request(nil))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(plan.Target.Instructions); n != dockerfile.MaxInstructions-1 {
		t.Errorf("%d instructions", n)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestInstructionLayer(t *testing.T) {
	for _, tc := range []struct {
		op   Op
		want bool
	}{
		{Run{}, true}, {Copy{}, true}, {Workdir{Path: "/x"}, true}, {Workdir{Path: "/"}, false}, {Workdir{Path: "/", Spelled: "/."}, true}, {Metadata{}, false},
	} {
		if got := (&Instruction{Op: tc.op}).Layer(); got != tc.want {
			t.Errorf("%#v: %v", tc.op, got)
		}
	}
}

func TestJoinDest(t *testing.T) {
	for _, tc := range []struct{ dir, dest, want string }{
		{"/", "", "/"},
		{"/w", "", "/w/"},
		{"/w", ".", "/w/"},
		{"/w", "./", "/w/"},
		{"/w", "a", "/w/a"},
		{"/w", "a/.", "/w/a/."},
		{"/w", "../a/", "/a/"},
		{"/w", "/", "/"},
		{"/w", "/.", "/."},
		{"/w", "/a//b/", "/a/b/"},
		{"/w", "../../..", "/"},
	} {
		if got := joinDest(tc.dir, tc.dest); got != tc.want {
			t.Errorf("joinDest(%q, %q) = %q, want %q", tc.dir, tc.dest, got, tc.want)
		}
	}
}

func TestCleanSource(t *testing.T) {
	for source, want := range map[string]string{
		"": ".", ".": ".", "/": ".", "a/": "a", "../../a": "a", "/a/../../b": "b", "a/*/": "a/*", "..": ".", "..a": "..a",
	} {
		if got := cleanSource(source); got != want {
			t.Errorf("cleanSource(%q) = %q, want %q", source, got, want)
		}
	}
}

// TestPure holds the rule that planning does no input and output.
func TestPure(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		for _, spec := range tree.Imports {
			switch path := strings.Trim(spec.Path.Value, `"`); path {
			case "os", "net", "net/http", "os/exec", "syscall", "io/fs":
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
	if seen == 0 {
		t.Error("no source files found")
	}
}

func FuzzNew(f *testing.F) {
	for _, seed := range []string{
		"FROM a AS b\nRUN <<E\n#!x\nE\nFROM b\nCOPY --from=b --chmod=u=x $a /${b:-c}/.\n",
		"ARG a=b\nFROM --platform=$BUILDPLATFORM $a\nARG a\nENV x=${a//b/c}\nEXPOSE 1-3 $a\nWORKDIR ../..\nONBUILD ADD x y\n",
		"FROM scratch\nONBUILD COPY --from=0 a b\nFROM 0\nFROM scratch AS x\nCOPY --from=1 <<E /\n$z\nE\n",
	} {
		f.Add(seed, "", "A", "b")
	}
	f.Fuzz(func(t *testing.T, source, target, key, value string) {
		file, err := dockerfile.Parse("Dockerfile", []byte(source))
		if err != nil {
			return
		}
		req := request(func(_ context.Context, ref string, platform ocispec.Platform) (*Image, error) {
			image := &Image{Ref: ref, Config: emptyImage(platform)}
			image.Config.Config.OnBuild = []string{value}
			return image, nil
		})
		req.Target, req.BuildArgs = target, map[string]string{key: value}
		plan, err := New(t.Context(), file, req)
		if err != nil {
			return
		}
		checkOrder(t, plan)
		if plan.String() == "" {
			t.Error("nothing to show")
		}
	})
}

// checkOrder wants every stage after all that it is made of, the target last.
func checkOrder(t *testing.T, plan *Plan) {
	t.Helper()
	if plan.Target == nil || plan.Stages[len(plan.Stages)-1] != plan.Target {
		t.Error("the target is not the last stage")
	}
	made := map[*Stage]bool{nil: true}
	for _, stage := range plan.Stages {
		if !made[stage.Base.Stage] {
			t.Error("a stage on one that is not made yet")
		}
		for _, in := range stage.Instructions {
			if op, ok := in.Op.(Copy); ok && op.From != nil && !made[op.From.Stage] {
				t.Error("a copy from a stage that is not made yet")
			}
			if op, ok := in.Op.(Run); ok {
				for _, mount := range op.Mounts {
					if mount.From != nil && !made[mount.From.Stage] {
						t.Error("a mount from a stage that is not made yet")
					}
				}
			}
		}
		made[stage] = true
	}
}
