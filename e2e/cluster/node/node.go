// SPDX-License-Identifier: Apache-2.0

// Package node runs the cluster of the end-to-end tests: one Kubernetes node with Tekton and Argo Workflows, in a network and a mount
// namespace of its own, so that no rule, bridge, route or mount of it is visible on the machine. Up and Down are idempotent; the state
// is below one directory of the user's cache. The package knows the cluster, not what is tested on it.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/programs"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// What the cluster is reached by, from the machine as from pods. Nothing beyond HostAddress can be reached by a pod.
const (
	Address     = "10.99.0.2" // the node
	HostAddress = "10.99.0.1" // the machine's end of the only wire
	// Registry takes everything over plain HTTP, without a password.
	Registry = Address + ":5000"
	// PrivateRegistry wants User and Password, over plain HTTP.
	PrivateRegistry = Address + ":5001"
	// TransientRegistry is another such, for the one test that takes it away: it may Stop and Start TransientRegistryService.
	TransientRegistry = Address + ":5002"
	// Published is the registry that the project's image is published in; the kubelet pulls from Registry what is named so.
	Published = "ghcr.io"
	User      = "builder"
	Password  = "correct-horse-battery-staple"

	podRange     = "10.99.1.0/24"
	serviceRange = "10.99.2.0/24"
	api          = "https://" + Address + ":6443"
	link         = "cluster0"
)

// Images that are in Registry.
const (
	BusyboxImage = Registry + "/busybox:1"
	PauseImage   = Registry + "/pause:1"
	GitImage     = Registry + "/git:1" // busybox and git, with git as entrypoint
)

func tektonImage(program string) string {
	return Registry + "/tekton/" + program + ":" + programs.TektonVersion
}

func argoImage(program string) string {
	return Registry + "/argo/" + program + ":" + programs.ArgoVersion
}

// Node is the cluster, running or not.
type Node struct {
	// Dir holds its state, and the log of every program in logs.
	Dir string
	// Log receives what Up and Down do, a line each.
	Log io.Writer
	set *programs.Set

	mu    sync.Mutex
	admin *http.Client // see client
}

// New is the cluster whose programs are in set. Only one can run on a machine, for its addresses are fixed.
func New(set *programs.Set, log io.Writer) (*Node, error) {
	dir, err := testenv.CacheDir("cluster", "node")
	if err != nil {
		return nil, err
	}
	return &Node{Dir: dir, Log: log, set: set}, nil
}

// Running is the cluster that runs now, for tests; the error says how to start it.
func Running(ctx context.Context) (*Node, error) {
	n, err := New(nil, io.Discard)
	if err != nil {
		return nil, err
	}
	if err := n.ready(ctx); err != nil {
		return nil, fmt.Errorf("the cluster is not up (make cluster-up): %w", err)
	}
	return n, nil
}

// Image is the reference of kaniko-go's own image in Registry, as the last Up put it there.
func (n *Node) Image() (string, error) {
	text, err := os.ReadFile(n.path("image"))
	if err != nil {
		return "", fmt.Errorf("the cluster has no image of kaniko-go (make cluster-up): %w", err)
	}
	return string(text), nil
}

// Kubectl runs kubectl as the cluster's administrator, with input as its standard input, and returns what it printed to standard output.
func (n *Node) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.path("bin", "kubectl"), append([]string{"--kubeconfig", n.path("admin.kubeconfig")}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	// Where discovery is cached; not below the user's home.
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+n.path("kubectl"))
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, problem.Bytes())
	}
	return out.String(), nil
}

// ready says whether everything that Up starts is running and the API answers. A test may have the one registry away at the moment.
func (n *Node) ready(ctx context.Context) error {
	if _, err := os.Stat(n.path("up")); err != nil {
		return errors.New("it was not started, or not completely")
	}
	for _, s := range n.services() {
		if s.name != TransientRegistryService && !n.alive(s.name) {
			return fmt.Errorf("%s does not run (its log: %s)", s.name, n.logFile(s.name))
		}
	}
	_, err := n.Kubectl(ctx, "", "get", "--raw", "/readyz")
	return err
}

func (n *Node) path(elements ...string) string {
	return filepath.Join(append([]string{n.Dir}, elements...)...)
}

func (n *Node) logFile(name string) string { return n.path("logs", name+".log") }

func (n *Node) say(format string, args ...any) { fmt.Fprintf(n.Log, format+"\n", args...) }

// needs says what is missing on this machine.
func needs() error {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		return errors.New("the cluster needs root on Linux")
	}
	var missing []string
	for _, program := range []string{"ip", "nsenter", "unshare", "mount", "umount", "nft", "sysctl", "busybox", "docker-registry", "git", "ldd", "tini-static"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if missing != nil {
		return fmt.Errorf("not installed: %s (on Debian as root: e2e/cluster/packages.sh)", strings.Join(missing, ", "))
	}
	return nil
}

// await asks until there is no error, at most for limit.
func await(ctx context.Context, limit time.Duration, what string, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not after %v: %w", what, limit, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}
