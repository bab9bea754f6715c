// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/cgroup"
)

// buildLimit ends a build that hangs; a test that needs less says so itself.
const buildLimit = 4 * time.Minute

// Build is one run of the binary: an environment, and the situation it is started in.
type Build struct {
	Binary    string
	Situation Situation
	// Args follow the binary.
	Args []string
	// Container is where it is started instead; nil for the machine's own root.
	Container *Container
	// Env is the whole environment but for PATH, TMPDIR, KANIKO_DIR and KANIKO_RESULTS_DIR, which are set when they are not given.
	Env map[string]string
	// Dir is the working directory; the build's own directory when empty.
	Dir string
	// SignalAt sends Signal when a line of the log contains this text.
	SignalAt string
	Signal   syscall.Signal
}

// Outcome is what a finished run left.
type Outcome struct {
	Code    int // exit code; 128+n when signal n ended it
	Log     string
	Stdout  string
	Cause   string            // the last line of the log
	Results map[string]string // name -> content of every file in the results directory
	Left    []string          // what should not be there any more: processes, files below the temporary directory
	Dir     string            // the build's own directory: dir, results and tmp are in it
	Wall    time.Duration
	// AfterSignal is the time between the signal and the end.
	AfterSignal time.Duration
}

// Run starts the binary and waits for its end. Only what keeps it from starting, or an end that does not come, fails the test.
func (b Build) Run(t *testing.T) Outcome {
	t.Helper()
	own := Dir(t)
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": filepath.Join(own, "tmp"),
		"KANIKO_DIR": filepath.Join(own, "dir"), "KANIKO_RESULTS_DIR": filepath.Join(own, "results"),
	}
	for _, dir := range []string{env["TMPDIR"], env["KANIKO_DIR"], env["KANIKO_RESULTS_DIR"]} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, b.Situation.UID, b.Situation.UID); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range b.Env {
		env[k] = v
	}
	argv, attr := b.Situation.command(t, own, append([]string{b.Binary}, b.Args...))
	if b.Container != nil {
		argv, attr = b.Container.command(t, own, b.Args)
	}
	group := newGroup(t)
	if group != nil {
		argv = group.Wrap(argv)
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.SysProcAttr, cmd.WaitDelay = b.Dir, attr, 5*time.Second
	if cmd.Dir == "" {
		cmd.Dir = own
	}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stdout bytes.Buffer
	log := &watcher{at: b.SignalAt, then: func() { _ = cmd.Process.Signal(b.Signal) }}
	cmd.Stdout, cmd.Stderr = &stdout, log
	start := time.Now()
	err := cmd.Run()
	o := Outcome{Log: log.log.String(), Stdout: stdout.String(), Dir: own, Wall: time.Since(start), AfterSignal: log.sinceMatch()}
	if ctx.Err() != nil {
		t.Fatalf("the build did not end within %v:\n%s", buildLimit, o.Log)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	if exit != nil {
		o.Code = exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			o.Code = 128 + int(status.Signal())
		}
	}
	o.Cause = lastLine(o.Log)
	o.Results = readFiles(t, env["KANIKO_RESULTS_DIR"])
	o.Left = append(survivors(group), below(env["TMPDIR"])...)
	return o
}

// groups numbers the control groups of one test process.
var groups atomic.Int64 //nolint:gochecknoglobals // a name must be unique in the process

func newGroup(t *testing.T) *cgroup.Group {
	t.Helper()
	g, err := cgroup.New(fmt.Sprintf("kaniko-go-e2e-%d-%d", os.Getpid(), groups.Add(1)))
	if err != nil {
		t.Logf("whether processes survive the build is not checked: %v", err)
		return nil
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		g.Remove()
	})
	return g
}

func survivors(g *cgroup.Group) []string {
	if g == nil {
		return nil
	}
	var left []string
	for _, pid := range g.PIDs() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		left = append(left, fmt.Sprintf("process %d: %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	}
	return left
}

func below(dir string) []string {
	entries, _ := os.ReadDir(dir)
	left := make([]string, 0, len(entries))
	for _, e := range entries {
		left = append(left, filepath.Join(dir, e.Name()))
	}
	return left
}

func readFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// watcher keeps a log and acts once when a text has been written. It embeds no buffer: io.Copy would call that one's ReadFrom.
type watcher struct {
	log     bytes.Buffer
	at      string
	then    func()
	matched time.Time
}

// Write is called by one goroutine of os/exec.
func (w *watcher) Write(p []byte) (int, error) {
	n, err := w.log.Write(p)
	if w.at != "" && w.matched.IsZero() && bytes.Contains(w.log.Bytes(), []byte(w.at)) {
		w.matched = time.Now()
		w.then()
	}
	return n, err
}

func (w *watcher) sinceMatch() time.Duration {
	if w.matched.IsZero() {
		return 0
	}
	return time.Since(w.matched)
}

// Compile builds the binary as `make build` does and returns its path, or the one that KANIKO_GO_BINARY names.
func Compile(ctx context.Context, dir string) (string, error) {
	if given := os.Getenv("KANIKO_GO_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	binary := filepath.Join(dir, "kaniko-go")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, "github.com/kaniko-go/kaniko-go/step")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling kaniko-go: %w\n%s", err, out)
	}
	return binary, nil
}

// setupLimit is how long compiling may take.
const setupLimit = 10 * time.Minute

// Main is TestMain of a package that runs the binary. The binary is compiled first, unless it is given; setup, which may be nil, is handed its path and a
// directory that every user may read, and whatever else the tests share is made there.
func Main(m *testing.M, setup func(ctx context.Context, binary, dir string) error) {
	Dispatch()
	flag.Parse()
	os.Exit(runWith(m, setup))
}

func runWith(m *testing.M, setup func(ctx context.Context, binary, dir string) error) int {
	dir, err := os.MkdirTemp("", "kaniko-go-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), setupLimit)
	defer cancel()
	var binary string
	if err = os.Chmod(dir, 0o755); err == nil {
		binary, err = Compile(ctx, dir)
	}
	if err == nil && setup != nil {
		err = setup(ctx, binary, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
