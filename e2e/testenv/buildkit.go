// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BuildKit is a running buildkitd of a pinned version: the other builder that says what an image should be.
type BuildKit struct {
	client, address string
}

// NewBuildKit starts a daemon, compiled from source when it is not in the tools cache yet, that may push to host over HTTP.
// tool is the path of .ci/tool.
func NewBuildKit(t *testing.T, tool, host string) BuildKit {
	t.Helper()
	NeedRoot(t)
	Need(t, "runc")
	programs := map[string]string{}
	for _, name := range []string{"buildkitd", "buildctl"} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		out, err := exec.CommandContext(ctx, tool, name).Output()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		programs[name] = strings.TrimSpace(string(out))
	}
	dir := Dir(t)
	config := fmt.Sprintf("[worker.oci]\nenabled = true\nsnapshotter = \"overlayfs\"\nnetworkMode = \"host\"\n[worker.containerd]\nenabled = false\n[registry.%q]\nhttp = true\ninsecure = true\n", host)
	if err := os.WriteFile(filepath.Join(dir, "buildkitd.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b := BuildKit{client: programs["buildctl"], address: "unix://" + filepath.Join(dir, "sock")}
	daemon := exec.CommandContext(context.Background(), programs["buildkitd"], "--config", filepath.Join(dir, "buildkitd.toml"), "--root", filepath.Join(dir, "root"), "--addr", b.address)
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := exec.CommandContext(context.Background(), b.client, "--addr", b.address, "debug", "workers").Run()
		if err == nil {
			return b
		}
		if time.Now().After(deadline) {
			t.Fatalf("buildkitd does not answer after 30 s: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Build builds directory/Dockerfile and pushes it.
func (b BuildKit) Build(t *testing.T, directory, destination string, options ...string) {
	t.Helper()
	args := []string{
		"--addr", b.address, "build", "--progress", "plain", "--no-cache", "--frontend", "dockerfile.v0", "--local", "context=" + directory, "--local", "dockerfile=" + directory,
		"--output", "type=image,push=true,registry.insecure=true,oci-mediatypes=true,name=" + destination,
	}
	for _, o := range options {
		args = append(args, "--opt", o)
	}
	command(t, "", b.client, args...)
}
