// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// stubborn is a build that does a bit of everything. Its RUN leaves processes that ignore SIGTERM, are in sessions of their
// own, and are stopped; it lasts as long as the build argument says.
const stubborn = `ARG BASE
FROM ${BASE} AS first
ARG LASTS
COPY noise /noise
RUN trap '' TERM INT; setsid sh -c 'trap "" TERM; sleep 300' & sh -c 'kill -STOP $$; sleep 300' & sh -c 'sleep 300 & setsid sleep 300 &' ; echo in the run; sleep ${LASTS}; cp /noise /copy
FROM ${BASE}
ARG LASTS
COPY --from=first /copy /copy
RUN echo x > /x; echo in the second run; sleep ${LASTS}
COPY noise /last
`

// killed is a build that signals are sent to.
type killed struct {
	world
	context string
	old     string // digest that the tag has before
}

func newKilled(t *testing.T) killed {
	t.Helper()
	k := killed{world: newWorld(t), context: dockerfile(t, stubborn)}
	noise := make([]byte, 4<<20)
	source := rand.NewChaCha8([32]byte{1})
	if _, err := source.Read(noise); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(k.context, "noise"), string(noise))
	if err := os.Chtimes(filepath.Join(k.context, "noise"), time.Unix(1700000000, 0), time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	base, err := testenv.Pull(t.Context(), k.base)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := base.Digest()
	if err != nil {
		t.Fatal(err)
	}
	k.old = digest.String()
	return k
}

// pod gives the build, to a tag of its own that leads to another image now.
func (k killed) pod(t *testing.T, kind kind, destination, lasts string) pod {
	t.Helper()
	base, err := testenv.Pull(t.Context(), k.base)
	if err != nil {
		t.Fatal(err)
	}
	if err := testenv.Push(t.Context(), base, destination); err != nil {
		t.Fatal(err)
	}
	p := k.build(kind, onDisk, k.context, destination, map[string]string{"KANIKO_VERBOSITY": "debug"})
	p.env["KANIKO_BUILD_ARG"] += "\nLASTS=" + lasts
	p.watched, p.volumeDir = true, testenv.Dir(t)
	return p
}

func (k killed) tag(t *testing.T, destination string) string {
	t.Helper()
	image, err := testenv.Pull(t.Context(), destination)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// left is what a build should have taken away: its part of the volume, and in place what it put aside.
func left(t *testing.T, o outcome, volume string) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{volume + "/build-*", volume + "/*/build-*", filepath.Join(o.dir, "upper/.kaniko-go*"), filepath.Join(o.dir, "upper/tmp/*"), filepath.Join(o.dir, "upper/bin")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, found...)
	}
	return list
}

// TestTerm sends SIGTERM when the log says that a phase has begun. The build ends within ten seconds with exit code 143, and
// leaves no result, no moved tag, no process and no file.
func TestTerm(t *testing.T) {
	k := newKilled(t)
	phases := []struct {
		name, at, lasts string
		late            bool // so near the end that the build may be done first
	}{
		{"start", "kaniko-go ", "0.2", false},
		{"isolation", "isolation: ", "0.2", false},
		{"base", "] FROM", "0.2", false},
		{"pull", "pull sha256", "0.2", false},
		{"unpack or first copy", "] COPY", "0.2", false},
		{"run", "in the run", "300", false},
		{"second run", "in the second run", "0.5", false},
		{"snapshot", "changes\n", "0.2", false},
		{"last copy", "COPY noise /last", "0.2", true},
		{"push", "push sha256", "0.2", true},
		{"publish", "image sha256:", "0.2", true},
		{"end", "pushed ", "0.2", true},
	}
	kinds := []kind{unconfined(), runtimeDefault()}
	if *full {
		kinds = append(kinds, ownUsers(), ownUsersUnmasked(), ownUsersAdmin(), privileged())
	}
	turn := slots()
	for i, kind := range kinds {
		for j, phase := range phases {
			t.Run(kind.name+"/"+phase.name, func(t *testing.T) {
				t.Parallel()
				turn <- struct{}{}
				defer func() { <-turn }()
				destination := fmt.Sprintf("%s/term/%d-%d:1", k.Host, i, j)
				p := k.pod(t, kind, destination, phase.lasts)
				var once sync.Once
				var sent time.Time
				p.at = func(log string, signal func(os.Signal)) {
					if strings.Contains(log, phase.at) {
						once.Do(func() { sent = time.Now(); signal(syscall.SIGTERM) })
					}
				}
				o := p.run(t, k.world)
				took := time.Since(sent)
				if sent.IsZero() {
					t.Fatalf("the log never says %q; exit code %d\n%s", phase.at, o.code, end(o.log))
				}
				if took > 10*time.Second {
					t.Errorf("it ended %v after the signal", took)
				}
				k.ended(t, o, destination, phase.late)
				if files := left(t, o, p.volumeDir); len(files) > 0 || o.survivors != "" {
					t.Errorf("left behind: files %q, processes %q\n%s", files, o.survivors, end(o.log))
				}
			})
		}
	}
}

// ended holds a build that got SIGTERM to all or nothing.
func (k killed) ended(t *testing.T, o outcome, destination string, late bool) {
	t.Helper()
	tag := k.tag(t, destination)
	switch {
	case o.code == 143 && len(o.results) == 0 && (tag == k.old || late):
	case o.code == 0 && late && o.results["IMAGE_DIGEST"] == tag:
	default:
		t.Errorf("exit code %d, results %q, the tag has %s and had %s\n%s", o.code, o.results, tag, k.old, end(o.log))
	}
}

// TestKill sends SIGKILL to the builder at random moments, and starts it again in the same container with the same volume: it
// works, makes the same image as ever, and nothing of the first run is left.
func TestKill(t *testing.T) {
	k := newKilled(t)
	kinds := []kind{unconfined(), runtimeDefault(), ownUsersUnmasked()}
	times := 36
	if *full {
		kinds = append(kinds, ownUsers(), ownUsersAdmin(), privileged())
		times = 200
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	want, lines := k.undisturbed(t)
	var mu sync.Mutex
	count := map[bool]int{}
	t.Run("kill", func(t *testing.T) {
		turn := slots()
		for i, kind := range kinds {
			for j := range times {
				m := moment{random.IntN(lines), time.Duration(random.Int64N(int64(50 * time.Millisecond)))}
				t.Run(fmt.Sprintf("%s/%d line %d and %v", kind.name, j, m.line, m.delay.Round(time.Millisecond)), func(t *testing.T) {
					t.Parallel()
					turn <- struct{}{}
					defer func() { <-turn }()
					hit := k.kill(t, kind, fmt.Sprintf("%s/kill/%d-%d:1", k.Host, i, j), m, want)
					mu.Lock()
					defer mu.Unlock()
					count[hit]++
				})
			}
		}
	})
	t.Logf("%d builds killed, %d done before; every next one in the same container made %s", count[true], count[false], want)
	if count[true] < 4*count[false] {
		t.Errorf("too few builds were killed for this to show anything: %d of %d", count[true], count[true]+count[false])
	}
}

// moment is when a builder is killed: some time after a line of its log.
type moment struct {
	line  int
	delay time.Duration
}

// undisturbed gives the digest of the image, and how many lines the log of its build has.
func (k killed) undisturbed(t *testing.T) (string, int) {
	t.Helper()
	o := k.pod(t, unconfined(), k.Host+"/kill/none:1", "0.1").run(t, k.world)
	if o.code != 0 {
		t.Fatalf("exit code %d\n%s", o.code, end(o.log))
	}
	return o.results["IMAGE_DIGEST"], strings.Count(o.log, "\n")
}

// kill tells whether the first run was killed.
func (k killed) kill(t *testing.T, kind kind, destination string, m moment, want string) bool {
	t.Helper()
	p := k.pod(t, kind, destination, "0.1")
	p.env["WATCH_AGAIN"] = "true"
	var once sync.Once
	p.at = func(log string, signal func(os.Signal)) {
		if strings.Count(log, "\n") > m.line {
			once.Do(func() { time.AfterFunc(m.delay, func() { signal(syscall.SIGUSR1) }) })
		}
	}
	o := p.run(t, k.world)
	hit := strings.Contains(o.log, "watch: first run ended with 137")
	if !hit && !strings.Contains(o.log, "watch: first run ended with 0") {
		t.Fatalf("the first run ended otherwise: exit code %d\n%s", o.code, end(o.log))
	}
	if o.code != 0 || o.results["IMAGE_DIGEST"] != want || k.tag(t, destination) != want {
		t.Errorf("the second run: exit code %d, results %q, the tag has %s, want %s\n%s", o.code, o.results, k.tag(t, destination), want, end(o.log))
	}
	if files := left(t, o, p.volumeDir); len(files) > 0 || o.survivors != "" {
		t.Errorf("left behind: files %q, processes %q\n%s", files, o.survivors, end(o.log))
	}
	if termination, err := os.ReadFile(filepath.Join(o.dir, "termination-log")); err != nil || len(bytes.TrimSpace(termination)) > 0 {
		t.Errorf("the termination message of a good build: %q, %v", termination, err)
	}
	return hit
}
