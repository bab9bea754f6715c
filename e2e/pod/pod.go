// SPDX-License-Identifier: Apache-2.0

// Package pod runs the binary as the pods of Tekton and Argo do, without a
// cluster. It takes the step out of the YAML that users install, substitutes
// parameters by the rules of the two controllers, gives the binary exactly the
// environment that results, and reads the results back as the controllers do.
// There is no container: absolute paths of the pod are directories below a
// temporary one, and the security context is not applied. It is for tests.
package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Pod is one step, ready to run once.
type Pod struct {
	// Env is the whole environment, NAME=VALUE, with paths as on this machine.
	Env []string
	// Dir is the working directory on this machine.
	Dir string
	// Name is that of the step or container.
	Name string
	// Command is what the YAML says is run in the container, with its arguments.
	Command []string

	root   string
	mounts []mount
	read   func(*Pod) (map[string]string, error)
}

// mount says that a path of the pod is a directory of this machine.
type mount struct{ inside, outside string }

// envVar is an entry of a container's env.
type envVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// ValueFrom would need a cluster to look things up in.
	ValueFrom any `json:"valueFrom"`
}

// expand gives env with references replaced.
func expand(env []envVar, form *regexp.Regexp, replace map[string]string) ([]envVar, error) {
	list := make([]envVar, len(env))
	for i, e := range env {
		if e.ValueFrom != nil {
			return nil, fmt.Errorf("pod: %s has a valueFrom, which is not emulated", e.Name)
		}
		list[i] = envVar{Name: e.Name, Value: substitute(form, e.Value, replace)}
	}
	return list, nil
}

// mkdir adds an empty directory to the pod, as an emptyDir is one.
func (p *Pod) mkdir(inside string) error {
	outside := filepath.Join(p.root, inside)
	p.mount(inside, outside)
	return os.MkdirAll(outside, 0o777)
}

// mount adds a directory of this machine to the pod. The longest path that
// fits is looked for first, as in a mount table.
func (p *Pod) mount(inside, outside string) {
	p.mounts = append(p.mounts, mount{inside, outside})
	slices.SortFunc(p.mounts, func(a, b mount) int { return len(b.inside) - len(a.inside) })
}

// workIn sets the working directory; the runtime makes one that does not exist.
func (p *Pod) workIn(inside string) error {
	if inside == "" {
		inside = "/workspace" // of the image
	}
	inside = filepath.Clean(inside)
	dir, ok := p.outside(inside)
	if !ok {
		if err := p.mkdir(inside); err != nil {
			return err
		}
		dir, _ = p.outside(inside)
	}
	p.Dir = dir
	return nil
}

// translate replaces the paths of the pod in a value: one by itself, one a
// line, oci:PATH, or several with colons between them.
func (p *Pod) translate(value string) string {
	lines := strings.Split(value, "\n")
	for i, line := range lines {
		parts := strings.Split(line, ":")
		for j, part := range parts {
			if strings.HasPrefix(part, "/") {
				parts[j], _ = p.outside(part)
			}
		}
		lines[i] = strings.Join(parts, ":")
	}
	return strings.Join(lines, "\n")
}

// outside gives the path on this machine of a path in the pod, and false for
// what no mount leads to.
func (p *Pod) outside(inside string) (string, bool) {
	for _, m := range p.mounts {
		if inside == m.inside || strings.HasPrefix(inside, m.inside+"/") {
			return m.outside + strings.TrimPrefix(inside, m.inside), true
		}
	}
	return inside, false
}

// setEnv makes the environment: what the runtime and the controller set, then
// what the YAML sets. Values that are paths of the pod become paths of this machine.
func (p *Pod) setEnv(controller, yaml []envVar) {
	runtime := []envVar{
		{Name: "PATH", Value: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{Name: "HOME", Value: "/root"},
		{Name: "USER", Value: "root"},
		{Name: "HOSTNAME", Value: "emulated-pod"},
		{Name: "KUBERNETES_SERVICE_HOST", Value: "10.96.0.1"},
		// As of a Service named kaniko-cache in the same namespace.
		{Name: "KANIKO_CACHE_SERVICE_HOST", Value: "10.96.0.2"},
		{Name: "KANIKO_CACHE_PORT_5000_TCP_ADDR", Value: "10.96.0.2"},
	}
	values := map[string]string{}
	var order []string
	for _, e := range slices.Concat(runtime, controller, yaml) {
		if _, twice := values[e.Name]; !twice {
			order = append(order, e.Name)
		}
		values[e.Name] = p.translate(e.Value)
	}
	for _, name := range order {
		p.Env = append(p.Env, name+"="+values[name])
	}
}

// Run runs the binary in the place of the pod's command and waits for its end.
// A code above zero is not an error; an error means that it could not be run.
// When ctx is done the binary gets SIGTERM, and SIGKILL half a minute later.
func (p *Pod) Run(ctx context.Context, binary string, stdout, stderr io.Writer) (code int, err error) {
	if !filepath.IsAbs(binary) {
		return 0, fmt.Errorf("pod: %s is not an absolute path", binary)
	}
	if len(p.Command) == 0 {
		return 0, errors.New("pod: the container has no command")
	}
	cmd := exec.CommandContext(ctx, binary, p.Command[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = p.Env, p.Dir, stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.Exited() {
			return exit.ExitCode(), nil
		}
		return 0, fmt.Errorf("pod: %w", err)
	}
	return 0, err
}

// Results reads what the controller would: name and value of each result.
// Under Tekton a result whose file is missing is missing here.
func (p *Pod) Results() (map[string]string, error) { return p.read(p) }

// readResult gives the content of a file of the pod, and false if there is none.
func (p *Pod) readResult(inside string) (string, bool, error) {
	path, ok := p.outside(inside)
	if !ok {
		return "", false, fmt.Errorf("pod: result %s is not on a volume", inside)
	}
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	// Both controllers may read as another user than the step's.
	if info.Mode() != 0o644 {
		return "", false, fmt.Errorf("pod: result %s has mode %v and may not be readable", inside, info.Mode())
	}
	content, err := os.ReadFile(path)
	return string(content), true, err
}
