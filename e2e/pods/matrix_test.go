// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// verdict is what a kind of pod does with a Dockerfile that has a RUN.
type verdict string

const (
	builds  verdict = "builds"
	refuses verdict = "refuses"
)

// row is a kind of pod and what is expected of it. A Dockerfile without RUN builds in every one.
type row struct {
	kind      kind
	isolation string // KANIKO_ISOLATION
	run       verdict
	// says are parts of the log of a build with RUN; with a volume and without.
	says, saysWithout string
}

func rows() []row {
	const (
		inplace  = "isolation: in place, in the container's own root file system"
		refusal  = "the container's seccomp profile most likely refuses it"
		overlay  = "isolation: namespace; user (identity), mount, uts, ipc; overlay"
		plain    = "isolation: namespace; user (identity), mount, uts, ipc; plain directories"
		overlayP = "isolation: namespace; user (identity), mount, uts, ipc, pid; overlay"
		plainP   = "isolation: namespace; user (identity), mount, uts, ipc, pid; plain directories"
	)
	return []row{
		{unconfined(), "auto", builds, overlay, plain},
		{runtimeDefault(), "namespace", refuses, refusal, refusal},
		{runtimeDefault(), "auto", builds, inplace, inplace},
		{unconfined(), "inplace", builds, inplace, inplace},
		{restricted(), "auto", refuses, refusal, refusal},
		{ownUsers(), "auto", builds, overlay, plain},
		{ownUsersAdmin(), "auto", builds, overlay, plain},
		{ownUsersUnmasked(), "auto", builds, overlayP, plainP},
		{privileged(), "auto", builds, overlayP, plainP},
	}
}

// TestMatrix builds the same Dockerfiles in every kind of pod, with and without an emptyDir for KANIKO_DIR. Each builds or
// refuses as the table says, and wherever it builds the image is the same to the last bit. A sample has each Dockerfile in
// three of the 27 combinations.
func TestMatrix(t *testing.T) {
	w := newWorld(t)
	m := &matrix{world: w, cases: sample(t), digests: map[string]string{}, seen: map[string]string{}}
	begun, combination := time.Now(), 0
	t.Run("pod", func(t *testing.T) {
		turn := slots()
		for _, r := range rows() {
			for _, v := range []volume{noVolume, onDisk, inMemory} {
				for i, c := range m.cases {
					if !*full && (i+combination)%9 != 0 {
						continue
					}
					t.Run(fmt.Sprintf("%s %s/%s/%s", r.kind.name, r.isolation, v, c.name), func(t *testing.T) {
						t.Parallel()
						turn <- struct{}{}
						defer func() { <-turn }()
						m.check(t, r, v, c)
					})
				}
				combination++
			}
		}
	})
	t.Logf("%d Dockerfiles, %d pods, %v: %d built %d images, %d refused", len(m.cases), m.built+m.refused, time.Since(begun).Round(time.Second), m.built, len(m.digests), m.refused)
}

// matrix is the state of TestMatrix.
type matrix struct {
	world
	cases []corpusCase

	mu             sync.Mutex
	digests, seen  map[string]string // case -> digest, and the pod that made it
	built, refused int
}

func (m *matrix) check(t *testing.T, r row, v volume, c corpusCase) {
	t.Helper()
	destination := m.Host + "/matrix/" + c.name + ":1"
	env := map[string]string{
		"KANIKO_CONTEXT": "/workspace/source", "KANIKO_DESTINATION": destination, "SOURCE_DATE_EPOCH": "1712345678", "KANIKO_ISOLATION": r.isolation,
	}
	maps.Copy(env, c.env)
	env["KANIKO_BUILD_ARG"] = strings.TrimSpace(env["KANIKO_BUILD_ARG"] + "\nBASE=" + m.base)
	o := pod{kind: r.kind, volume: v, env: env, binds: []bind{{"/workspace/source", c.context, true}}}.run(t, m.world)
	says := r.says
	if v == noVolume {
		says = r.saysWithout
	}
	if c.runs && !strings.Contains(o.log, says) {
		t.Errorf("the log does not say %q:\n%s", says, o.log)
	}
	if c.runs && r.run == refuses {
		if o.code != 7 || len(o.results) > 0 || !strings.Contains(o.cause, "hostUsers: false with capabilities.add: [SYS_ADMIN]") {
			t.Errorf("want a refusal that says what would help; exit code %d, results %q\n%s", o.code, o.results, o.log)
		}
		if message, err := os.ReadFile(filepath.Join(o.dir, "termination-log")); err != nil || "error: "+string(message) != o.cause {
			t.Errorf("the termination message is %q (%v), the last line %q", message, err, o.cause)
		}
		m.count(&m.refused)
		return
	}
	if o.code != 0 || o.results["IMAGE_URL"] != destination {
		t.Fatalf("want an image; exit code %d, results %q\n%s", o.code, o.results, o.log)
	}
	m.count(&m.built)
	m.compare(t, c.name, r.kind.name+" "+string(v), o.results["IMAGE_DIGEST"])
}

func (m *matrix) count(n *int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*n++
}

func (m *matrix) compare(t *testing.T, name, where, digest string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.digests[name] == "" {
		m.digests[name], m.seen[name] = digest, where
	}
	if m.digests[name] != digest {
		t.Errorf("this pod makes %s, and %s makes %s", digest, m.seen[name], m.digests[name])
		repository := m.Host + "/matrix/" + strings.TrimSuffix(name, " by overlay") + "@"
		t.Logf("from there to here:\n%s", cmp.Diff(layers(t, repository+m.digests[name]), layers(t, repository+digest)))
	}
}
