// SPDX-License-Identifier: Apache-2.0

// Package programs compiles what the cluster of the end-to-end tests consists of: Kubernetes, etcd, containerd, runc, the network
// plugins, Tekton and Argo Workflows. Their sources are as released, but for what mendArgo says. All but runc are in one module (the directory parts), with one
// version of every library: two thirds of what they are made of is the same. The programs are kept in the user's cache directory by
// version, with the YAML that installs them, all or none; an interrupted run is continued by the next. It starts nothing.
package programs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// The versions that the cluster has, as in the go.mod of parts.
const (
	KubernetesVersion = "v1.35.6"
	ContainerdVersion = "v2.2.9"
	TektonVersion     = "v1.15.0"
	ArgoVersion       = "v3.7.18"
)

const (
	tekton = "github.com/tektoncd/pipeline"
	argo   = "github.com/argoproj/argo-workflows/v3"
	// moduleDir is where the module of all programs is.
	moduleDir = "e2e/cluster/parts"
)

// packages are what is compiled. The last part of a path is the name of a program.
func packages() []string {
	return []string{
		"./kube",
		"github.com/containerd/containerd/v2/cmd/containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/ctr",
		"github.com/containernetworking/plugins/plugins/main/bridge", "github.com/containernetworking/plugins/plugins/ipam/host-local",
		tekton + "/cmd/controller", tekton + "/cmd/webhook", tekton + "/cmd/events", tekton + "/cmd/resolvers",
		tekton + "/cmd/entrypoint", tekton + "/cmd/nop", tekton + "/cmd/workingdirinit", tekton + "/cmd/sidecarlogresults",
		argo + "/cmd/workflow-controller", argo + "/cmd/argoexec",
	}
}

// flags are what they are compiled with. Without inlining it takes a fifth less, and nobody measures how fast these programs are.
// The first tag of Kubernetes' libraries gives them what Argo Workflows' clients still ask of them.
func flags() []string {
	const version = "k8s.io/component-base/version.git"
	return []string{
		"-trimpath", "-buildvcs=false", "-gcflags=all=-l",
		"-tags=kubernetes_protomessage_one_more_release,no_btrfs,no_devmapper,no_zfs",
		// What their releases set, too.
		"-ldflags=-s -w -X github.com/containerd/containerd/v2/version.Version=" + ContainerdVersion +
			" -X " + version + "Version=" + KubernetesVersion + " -X " + version + "Major=1 -X " + version + "Minor=35",
	}
}

// manifests are the directories of modules that are kept with the programs.
func manifests() map[string]string { return map[string]string{tekton: "config", argo: "manifests"} }

// Set is where the programs are.
type Set struct {
	// Runc is the runtime, compiled with the one of the other suites.
	Runc string
	// Pause is the program that holds a pod's namespaces.
	Pause string
	dir   string
	log   io.Writer
	repo  string
}

// ErrLimit says that the time was not enough. What was compiled is kept, and the next run goes on from there.
var ErrLimit = errors.New("the limit is over before everything is compiled; run it again to go on")

// Make compiles what is not there yet, for at most limit, and reports what it does to log. Simultaneous calls wait for each other.
// The error is ErrLimit when the limit ended it.
func Make(ctx context.Context, repository string, limit time.Duration, log io.Writer) (*Set, error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s := &Set{log: log, repo: repository}
	err := s.make(bounded)
	if bounded.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w (%v)", ErrLimit, limit)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Path is a program. kube has one program for all names.
func (s *Set) Path(program string) string { return filepath.Join(s.dir, program) }

// Tekton is the directory with the YAML that installs Tekton.
func (s *Set) Tekton() string { return filepath.Join(s.dir, "config") }

// Argo is the directory with the YAML that installs Argo Workflows.
func (s *Set) Argo() string { return filepath.Join(s.dir, "manifests") }

func (s *Set) make(ctx context.Context) error {
	root, err := testenv.CacheDir("cluster")
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(root, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	key, err := s.key()
	if err != nil {
		return err
	}
	s.dir = filepath.Join(root, fmt.Sprintf("programs-%s-%s", key, runtime.Version()))
	if _, err := os.Stat(s.dir); err != nil {
		if err := s.compile(ctx, s.dir+".part"); err != nil {
			return err
		}
		if err := os.Rename(s.dir+".part", s.dir); err != nil {
			return err
		}
	}
	// Small, in this repository, and so compiled every time.
	s.Pause = filepath.Join(root, "pause", "pause")
	if _, err := s.output(ctx, s.repo, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", s.Pause, "./e2e/cluster/pause"); err != nil {
		return err
	}
	out, err := s.output(ctx, s.repo, nil, filepath.Join(s.repo, ".ci/tool"), "runc")
	s.Runc = strings.TrimSpace(string(out))
	return err
}

// compile makes a directory with all programs and the YAML. One command compiles them: what several need, or what all others wait for,
// is not made twice.
func (s *Set) compile(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintln(s.log, "downloading the sources of the cluster's programs")
	for module, sub := range manifests() {
		source, err := s.source(ctx, module)
		if err == nil {
			err = copyTree(filepath.Join(source, sub), filepath.Join(dir, sub))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", module, err)
		}
	}
	work := dir + ".work"
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	modfile, err := s.mendArgo(ctx, work)
	if err != nil {
		return err
	}
	args := slices.Concat([]string{"-n", "15", "go", "build", "-v", "-modfile=" + modfile, "-mod=readonly", "-o", dir + "/"}, flags(), packages())
	begun := time.Now()
	cmd := s.command(ctx, filepath.Join(s.repo, moduleDir), []string{"CGO_ENABLED=0", "GOGC=300"}, "nice", args...) // more garbage, less time
	var problem bytes.Buffer
	cmd.Stderr = io.MultiWriter(&problem, &progress{log: s.log, begun: begun})
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compiling: %w\n%s", err, complaints(problem.String()))
	}
	fmt.Fprintf(s.log, "compiled the cluster's programs in %v\n", time.Since(begun).Round(time.Second))
	return nil
}

// complaints are what the go command says besides the names of packages.
func complaints(text string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, " ") }), "\n")
}

// progress tells how many packages are compiled: the go command prints a line for each when it begins.
type progress struct {
	log      io.Writer
	begun    time.Time
	packages int
}

func (p *progress) Write(b []byte) (int, error) {
	for range bytes.Count(b, []byte("\n")) {
		const often = 500
		if p.packages++; p.packages%often == 0 {
			fmt.Fprintf(p.log, "%d packages compiled after %v\n", p.packages, time.Since(p.begun).Round(time.Second))
		}
	}
	return len(b), nil
}

// source is the directory of a module.
func (s *Set) source(ctx context.Context, module string) (string, error) {
	if _, err := s.output(ctx, filepath.Join(s.repo, moduleDir), nil, "go", "mod", "download", module); err != nil {
		return "", err
	}
	out, err := s.output(ctx, filepath.Join(s.repo, moduleDir), nil, "go", "list", "-m", "-f", "{{.Dir}}", module)
	return strings.TrimSpace(string(out)), err
}

// lookup is the method that k8s.io/apimachinery asks of labels since 0.35, which Argo Workflows 3.7 is a little older than.
const lookup = `package executor

func (g gjsonLabels) Lookup(label string) (string, bool) { return g.Get(label), g.Has(label) }
`

// mendArgo makes a go.mod that leads to a copy of Argo Workflows' source: a module has no symbolic links, and one file of it is such a
// link in the repository; and it wants that method.
func (s *Set) mendArgo(ctx context.Context, work string) (modfile string, err error) {
	source, err := s.source(ctx, argo)
	if err != nil {
		return "", err
	}
	copied := filepath.Join(work, "argo")
	if err := copyTree(source, copied); err != nil {
		return "", err
	}
	const executor = "workflow/executor/"
	signals, err := os.ReadFile(filepath.Join(copied, executor+"osspecific/signal_darwin.go"))
	if err != nil {
		return "", err
	}
	for name, text := range map[string][]byte{executor + "osspecific/signal_linux.go": signals, executor + "lookup.go": []byte(lookup)} {
		if err := os.WriteFile(filepath.Join(copied, name), text, 0o644); err != nil {
			return "", err
		}
	}
	modfile = filepath.Join(work, "go.mod")
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(s.repo, moduleDir, name))
		if err != nil {
			return "", err
		}
		if name == "go.mod" {
			data = fmt.Appendf(data, "\nreplace %s => %s\n", argo, copied)
		}
		if err := os.WriteFile(filepath.Join(work, name), data, 0o644); err != nil {
			return "", err
		}
	}
	return modfile, nil
}

// output runs a command and returns what it printed.
func (s *Set) output(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := s.command(ctx, dir, env, name, args...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, problem.Bytes())
	}
	return out.Bytes(), nil
}

// command is interrupted, not killed, at the end of the context: the go command then removes its temporary directory.
func (s *Set) command(ctx context.Context, dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// lock waits until no other process compiles.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("%s is locked by another process: %w", name, ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// key is a digest of all that decides what is compiled.
func (s *Set) key() (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "kube/main.go"} {
		data, err := os.ReadFile(filepath.Join(s.repo, moduleDir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	fmt.Fprintf(h, "%q %q %s", flags(), packages(), lookup)
	return fmt.Sprintf("%x", h.Sum(nil)[:4]), nil
}

// copyTree copies a directory, writable; what was at the target is gone.
func copyTree(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}
