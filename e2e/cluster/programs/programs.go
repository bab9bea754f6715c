// SPDX-License-Identifier: Apache-2.0

// Package programs compiles what the cluster of the end-to-end tests consists of: Kubernetes, etcd, containerd, runc, the network
// plugins, Tekton and Argo Workflows, each as released and in its own module, so that its own go.sum counts. What is compiled is kept
// in the user's cache directory by version, with the YAML that installs it; a program is put there whole or not at all, so an
// interrupted run is continued by the next. It starts nothing.
package programs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// The versions that the cluster has. A change of one compiles that part anew.
const (
	KubernetesVersion = "v1.34.4"
	ContainerdVersion = "v2.2.9"
	TektonVersion     = "v1.15.0"
	ArgoVersion       = "v3.7.18"
	pluginsVersion    = "v1.9.1"
)

// part is what is compiled from one module.
type part struct {
	name     string
	module   string // with version; "" is the package kube of this repository
	key      string // what the directory is called, next to the name
	packages []string
	tags     string
	set      map[string]string // variables that the linker sets
	keep     []string          // directories of the module that are kept with the programs
	// writable says that the module must be copied first, with these files as copies of others.
	writable map[string]string
}

func parts(kube string) []part {
	version := "k8s.io/component-base/version.git"
	return []part{
		{
			name: "containerd", module: "github.com/containerd/containerd/v2@" + ContainerdVersion, key: ContainerdVersion,
			packages: []string{"./cmd/containerd", "./cmd/containerd-shim-runc-v2", "./cmd/ctr"}, tags: "no_btrfs,no_devmapper,no_zfs",
			set: map[string]string{"github.com/containerd/containerd/v2/version.Version": ContainerdVersion},
		},
		{
			name: "plugins", module: "github.com/containernetworking/plugins@" + pluginsVersion, key: pluginsVersion,
			packages: []string{"./plugins/main/bridge", "./plugins/ipam/host-local"},
		},
		{
			name: "tekton", module: "github.com/tektoncd/pipeline@" + TektonVersion, key: TektonVersion, keep: []string{"config"},
			packages: []string{"./cmd/controller", "./cmd/webhook", "./cmd/events", "./cmd/resolvers", "./cmd/entrypoint", "./cmd/nop", "./cmd/workingdirinit", "./cmd/sidecarlogresults"},
		},
		{
			name: "argo", module: "github.com/argoproj/argo-workflows/v3@" + ArgoVersion, key: ArgoVersion, keep: []string{"manifests"},
			packages: []string{"./cmd/workflow-controller", "./cmd/argoexec"},
			// A module has no symbolic links, and this file is one in the repository.
			writable: map[string]string{"workflow/executor/osspecific/signal_linux.go": "workflow/executor/osspecific/signal_darwin.go"},
		},
		{
			name: "kube", key: KubernetesVersion + "-" + kube, packages: []string{"."},
			set: map[string]string{version + "Version": KubernetesVersion, version + "Major": "1", version + "Minor": "34"},
		},
	}
}

// Set is where the programs are.
type Set struct {
	// Runc is the runtime, compiled with the one of the other suites.
	Runc string
	dirs map[string]string
	log  io.Writer
	repo string
}

// ErrLimit says that the time was not enough. What was compiled is kept, and the next run goes on from there.
var ErrLimit = errors.New("the limit is over before everything is compiled; run it again to go on")

// Make compiles what is not there yet, for at most limit, and reports what it does to log. Simultaneous calls wait for each other.
// The error is ErrLimit when the limit ended it.
func Make(ctx context.Context, repository string, limit time.Duration, log io.Writer) (*Set, error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s := &Set{dirs: map[string]string{}, log: log, repo: repository}
	err := s.make(bounded)
	if bounded.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w (%v)", ErrLimit, limit)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Path is a program of a part, as "tekton", "controller". kube has one program for all names.
func (s *Set) Path(part, program string) string { return filepath.Join(s.dirs[part], program) }

// Dir holds the programs of a part and the YAML of its module.
func (s *Set) Dir(part string) string { return s.dirs[part] }

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
	kube, err := digest(filepath.Join(s.repo, "e2e/cluster/kube"), "main.go", "go.mod")
	if err != nil {
		return err
	}
	// Two at a time: while one links, or waits for the one package that all others need, the other has work.
	group, bounded := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, p := range parts(kube) {
		dir := filepath.Join(root, fmt.Sprintf("%s-%s-%s", p.name, p.key, runtime.Version()))
		s.dirs[p.name] = dir
		group.Go(func() error {
			if err := s.compile(bounded, p, dir); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if s.dirs["pause"], err = s.pause(ctx, root); err != nil {
		return err
	}
	out, err := s.output(ctx, s.repo, nil, filepath.Join(s.repo, ".ci/tool"), "runc")
	s.Runc = strings.TrimSpace(string(out))
	return err
}

// compile makes the programs of a part that are missing, one after the other: each is of use to the next run when this one is interrupted.
func (s *Set) compile(ctx context.Context, p part, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	source := ""
	for _, pkg := range p.packages {
		name := path.Base(pkg)
		if pkg == "." {
			name = p.name
		}
		out := filepath.Join(dir, name)
		if _, err := os.Stat(out); err == nil {
			continue
		}
		if source == "" {
			made, done, err := s.source(ctx, p, dir)
			if err != nil {
				return err
			}
			defer done()
			source = made
		}
		if err := s.build(ctx, p, source, pkg, out); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) build(ctx context.Context, p part, source, pkg, out string) error {
	start := time.Now()
	flags := "-s -w"
	for name, value := range p.set {
		flags += fmt.Sprintf(" -X %s=%s", name, value)
	}
	part := out + ".part"
	defer func() { _ = os.Remove(part) }()
	// Without inlining it takes a fifth less to compile, and nobody measures how fast these programs are.
	args := []string{"-n", "15", "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-gcflags=all=-l", "-tags=" + p.tags, "-ldflags=" + flags, "-o", part, pkg}
	if _, err := s.output(ctx, source, []string{"CGO_ENABLED=0"}, "nice", args...); err != nil {
		return err
	}
	fmt.Fprintf(s.log, "compiled %s of %s in %v\n", filepath.Base(out), p.name, time.Since(start).Round(time.Second))
	return os.Rename(part, out)
}

// source is the directory of the part's module; done removes what was made for it.
func (s *Set) source(ctx context.Context, p part, dir string) (source string, done func(), err error) {
	if p.module == "" {
		return filepath.Join(s.repo, "e2e/cluster/kube"), func() {}, nil
	}
	fmt.Fprintf(s.log, "downloading %s\n", p.module)
	out, err := s.output(ctx, s.repo, nil, "go", "mod", "download", "-json", p.module)
	if err != nil {
		return "", nil, err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", nil, fmt.Errorf("go mod download: %w", err)
	}
	for _, name := range p.keep {
		if err := keep(filepath.Join(module.Dir, name), filepath.Join(dir, name)); err != nil {
			return "", nil, err
		}
	}
	if p.writable == nil {
		return module.Dir, func() {}, nil
	}
	copied := filepath.Join(dir, "source")
	if err := copyTree(module.Dir, copied); err != nil {
		return "", nil, err
	}
	for to, from := range p.writable {
		data, err := os.ReadFile(filepath.Join(copied, from))
		if err != nil {
			return "", nil, err
		}
		if err := os.WriteFile(filepath.Join(copied, to), data, 0o644); err != nil {
			return "", nil, err
		}
	}
	return copied, func() { _ = os.RemoveAll(copied) }, nil
}

// pause is the program that holds a pod's namespaces, compiled every time: it is small, and it is in this repository.
func (s *Set) pause(ctx context.Context, root string) (string, error) {
	dir := filepath.Join(root, "pause")
	_, err := s.output(ctx, s.repo, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(dir, "pause"), "./e2e/cluster/pause")
	return dir, err
}

// output runs a command that is interrupted, not killed, at the end of the context: the go command then removes its temporary directory.
func (s *Set) output(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, problem.Bytes())
	}
	return out.Bytes(), nil
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

func digest(dir string, names ...string) (string, error) {
	h := sha256.New()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4]), nil
}

// keep copies a directory to where it does not exist yet.
func keep(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if err := copyTree(from, to+".part"); err != nil {
		return err
	}
	return os.Rename(to+".part", to)
}

// copyTree copies a directory, writable; what was at the target is gone.
func copyTree(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}
