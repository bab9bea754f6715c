// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/cgroup"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// podLimit ends a pod that hangs.
const podLimit = 3 * time.Minute

// volume is what is mounted for KANIKO_DIR.
type volume string

const (
	noVolume volume = "none"
	onDisk   volume = "emptyDir"
	inMemory volume = "emptyDir in memory"
)

// pod is one run of the executor in a container.
type pod struct {
	kind   kind
	volume volume
	// volumeDir is the emptyDir, for pods that share one; a new one when empty.
	volumeDir string
	// env is more than what every container has.
	env   map[string]string
	binds []bind
	// script is run by a shell in the place of the executor, to see what the pod itself may do.
	script string
	// noToken is automountServiceAccountToken: false.
	noToken bool
	// watched runs the executor below an init that reports what is left.
	watched bool
	// at is called with every piece of the log, and may send signals to the container's first process.
	at func(log string, signal func(os.Signal))
}

// outcome is what a pod left.
type outcome struct {
	code       int
	log, cause string
	results    map[string]string
	survivors  string // what the watching init reports
	dir        string // the pod's directory on this machine: upper (what it wrote to its root), results, volume
	wall       time.Duration
}

// pods numbers the control groups of one test process.
var pods atomic.Int64

// token is the service-account token of every pod.
const token = "planted_service-account-token"

// assemble does in a mount namespace of its own what containerd does before it calls runc.
const assemble = `mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t tmpfs -o mode=0755 tmpfs "$1/token"
printf ` + token + ` > "$1/token/token"
if [ "$3" = memory ]; then mount -t tmpfs -o mode=0777 tmpfs "$4"; fi
cd "$1/bundle"
shift 4
exec "$@"`

// run starts the pod and waits for its end. Only what keeps it from starting, or an end that does not come, fails the test.
func (p pod) run(t *testing.T, w world) outcome {
	t.Helper()
	dir := testenv.Dir(t)
	owner := 0
	if p.kind.ownUsers {
		owner = firstID
	}
	lower := made.images.root(t, owner)
	binds := p.prepare(t, dir, owner)
	group, err := cgroup.New(fmt.Sprintf("kaniko-go-pods-%d-%d", os.Getpid(), pods.Add(1)))
	if err != nil {
		t.Skipf("no control group for the pod: %v", err)
	}
	t.Cleanup(func() {
		if err := group.Kill(); err != nil {
			t.Error(err)
		}
		group.Remove()
	})
	argv, env := p.process()
	spec := p.kind.spec(t, filepath.Join(dir, "root"), argv, env, binds, w.sandbox(p.kind), filepath.Join(group.Path(), "container"))
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bundle", "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	memory := "disk"
	if p.volume == inMemory {
		memory = "memory"
	}
	name := filepath.Base(group.Path())
	script := []string{
		"--mount", "--propagation", "private", "/bin/sh", "-e", "-c", assemble, "sh", dir, lower, memory, p.volumeOf(dir),
		made.runc, "--root", filepath.Join(dir, "runc"), "run", name,
	}
	return p.start(t, dir, script)
}

func (p pod) volumeOf(dir string) string {
	if p.volumeDir != "" {
		return p.volumeDir
	}
	return filepath.Join(dir, "volume")
}

// prepare makes the pod's files and directories, and lists the mounts that every pod has.
func (p pod) prepare(t *testing.T, dir string, owner int) []bind {
	t.Helper()
	for _, sub := range []string{"root", "upper", "work", "bundle", "token", "volume", "results", "runc", "watch"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The root of a container belongs to its root; an emptyDir is open to everybody.
	if err := os.Chown(filepath.Join(dir, "upper"), owner, owner); err != nil {
		t.Fatal(err)
	}
	for _, open := range []string{filepath.Join(dir, "results"), p.volumeOf(dir), filepath.Join(dir, "watch")} {
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{"hosts": "127.0.0.1\tlocalhost\n127.0.0.1\tpod\n", "hostname": "pod\n", "resolv.conf": "nameserver 127.0.0.1\n", "termination-log": ""}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); name == "termination-log" && err != nil {
			t.Fatal(err)
		}
	}
	binds := []bind{
		{"/etc/hosts", filepath.Join(dir, "hosts"), false},
		{"/etc/hostname", filepath.Join(dir, "hostname"), false},
		{"/etc/resolv.conf", filepath.Join(dir, "resolv.conf"), false},
		{"/dev/termination-log", filepath.Join(dir, "termination-log"), false},
		{"/tekton/results", filepath.Join(dir, "results"), false},
	}
	if !p.noToken {
		binds = append(binds, bind{"/var/run/secrets/kubernetes.io/serviceaccount", filepath.Join(dir, "token"), true})
	}
	if p.volume != noVolume {
		binds = append(binds, bind{"/kaniko/work", p.volumeOf(dir), false})
	}
	if p.watched {
		binds = append(binds, bind{"/watch/out", filepath.Join(dir, "watch"), false}, bind{"/watch/init", made.watch, true})
	}
	if p.script != "" {
		binds = append(binds, bind{"/watch/busybox", busybox(t), true}, bind{"/watch/bin", applets(t), true})
	}
	return append(binds, p.binds...)
}

func busybox(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// applets is a directory of links to busybox.
func applets(t *testing.T) string {
	t.Helper()
	dir := testenv.Dir(t)
	for _, name := range []string{"cat", "head", "wc", "sh", "ls", "grep"} {
		if err := os.Symlink("/watch/busybox", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// process is what the container runs.
func (p pod) process() (argv, env []string) {
	values := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": "pod", "HOME": "/root",
		"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "KANIKO_RESULTS_DIR": "/tekton/results",
	}
	argv = []string{"/kaniko/executor"}
	if p.script != "" {
		argv = []string{"/watch/busybox", "sh", "-c", p.script}
		values["PATH"] = "/watch/bin"
	}
	if p.watched {
		argv = []string{"/watch/init", "/kaniko/executor"}
		values["WATCH_REPORT"] = "/watch/out/report"
	}
	for k, v := range p.env {
		values[k] = v
	}
	for k, v := range values {
		env = append(env, k+"="+v)
	}
	return argv, env
}

// start runs the prepared command to its end.
func (p pod) start(t *testing.T, dir string, args []string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), podLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.WaitDelay = 5 * time.Second
	log := &tap{}
	if p.at != nil {
		log.then = func(text string) { p.at(text, func(s os.Signal) { _ = cmd.Process.Signal(s) }) }
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begun := time.Now()
	err := cmd.Run()
	o := outcome{log: log.text(), dir: dir, wall: time.Since(begun)}
	if ctx.Err() != nil {
		t.Fatalf("the pod did not end within %v:\n%s", podLimit, o.log)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		o.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(o.log, "\n"), "\n")
	o.cause = lines[len(lines)-1]
	o.results = texts(t, filepath.Join(dir, "results"))
	o.survivors = texts(t, filepath.Join(dir, "watch"))["report"]
	if _, err := os.Stat(filepath.Join(dir, "watch", "report")); p.watched && err != nil {
		t.Errorf("the watching init wrote no report: %v\n%s", err, o.log)
	}
	return o
}

func texts(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

// tap keeps a log and shows it to a function whenever it grows.
type tap struct {
	mu   sync.Mutex
	log  bytes.Buffer
	then func(text string)
}

// Write implements io.Writer.
func (w *tap) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.log.Write(p)
	if w.then != nil {
		w.then(w.log.String())
	}
	return n, err
}

func (w *tap) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}
