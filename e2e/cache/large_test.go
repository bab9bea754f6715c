// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/e2e/cgroup"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// maxAnonymous is what a fully cached build may take of a memory limit, whatever the size of the base.
const maxAnonymous = 60e6

// TestLargeBase: a fully cached build on a base of 800 MB neither reads nor waits for any of it.
func TestLargeBase(t *testing.T) {
	w := newWorld(t)
	size, limit := int64(80<<20), 5*time.Second // a sample may run on a busy machine
	if *full {
		size, limit = 800<<20, time.Second
	}
	image, err := testenv.Pull(t.Context(), w.base)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		l, err := random.Layer(size/4, types.OCILayer)
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, l); err != nil {
			t.Fatal(err)
		}
	}
	if err := testenv.Push(t.Context(), image, w.host+"/base/large:1"); err != nil {
		t.Fatal(err)
	}
	dir := testenv.Dir(t)
	several(10).write(t, dir)
	env := with(cached(w.host+"/cache"), "KANIKO_BUILD_ARG", "BASE="+w.host+"/base/large:1")
	first := w.mustBuild(t, dir, w.host+"/large:1", env)

	// The best of three, for the machine may be busy with something else.
	best, most := time.Hour, int64(0)
	for n := range 3 {
		wall, peak := measured(t, with(env, "KANIKO_CONTEXT", dir, "KANIKO_DESTINATION", fmt.Sprintf("%s/elsewhere%d:1", w.host, n)))
		best, most = min(best, wall), max(most, peak)
	}
	t.Logf("%d MB base: %v, %.1f MB anonymous", size>>20, best.Round(time.Millisecond), float64(most)/1e6)
	if best > limit || most > maxAnonymous {
		t.Errorf("a full hit took %v (at most %v) and %.1f MB (at most %.0f)", best, limit, float64(most)/1e6, maxAnonymous/1e6)
	}
	got := pull(t, w.host+"/elsewhere0:1")
	if d, err := got.Digest(); err != nil || d.String() != first.digest {
		t.Errorf("digest %v, want %s: %v", d, first.digest, err)
	}
}

// measured builds, and tells how long that took and the most memory that cannot be reclaimed.
func measured(t *testing.T, env map[string]string) (wall time.Duration, peak int64) {
	t.Helper()
	group, err := cgroup.New(fmt.Sprintf("kaniko-go-e2e-cache-%d", os.Getpid()))
	if err != nil {
		t.Skipf("memory cannot be measured here: %v", err)
	}
	defer group.Remove()
	work := testenv.Dir(t)
	argv := group.Wrap([]string{binary})
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Env = []string{"PATH=/usr/bin:/bin", "KANIKO_DIR=" + work, "KANIKO_RESULTS_DIR=" + filepath.Join(work, "results")}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%v\n%s", err, log.String())
			}
			return time.Since(start), peak
		case <-time.After(2 * time.Millisecond):
			if n, err := group.Anonymous(); err == nil {
				peak = max(peak, n)
			}
		}
	}
}
