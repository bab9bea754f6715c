// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// startLimit is how long a registry may take until it listens.
const startLimit = 15 * time.Second

// RegistryOptions says which registry to start. The zero value is plain HTTP without a password.
type RegistryOptions struct {
	TLS      bool   // with a certificate of a private authority that nobody else trusts
	User     string // with Password: basic authentication for everything
	Password string
	ReadOnly bool // refuses every write with 405
	NoDelete bool // refuses every deletion with 405
}

// Registry is a running distribution server on a loopback port of its own.
type Registry struct {
	Host string // host:port
	CA   string // PEM file of the authority, with TLS
	root string
	cmd  *exec.Cmd
}

// StartRegistry starts Debian's docker-registry with its blobs below dir. The caller calls Stop.
func StartRegistry(ctx context.Context, dir string, o RegistryOptions) (*Registry, error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("distribution registry: %w (on Debian as root: e2e/packages.sh)", err)
	}
	r := &Registry{root: filepath.Join(dir, "blobs")}
	config, err := r.configure(dir, o)
	if err != nil {
		return nil, fmt.Errorf("distribution registry: %w", err)
	}
	r.cmd = exec.CommandContext(ctx, program, "serve", config)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("distribution registry: %w", err)
	}
	if err := r.await(stderr); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// Stop ends the server; what it stored stays.
func (r *Registry) Stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// Files lists the stored files whose path below the repositories matches a shell pattern, for tests that must see that no
// tag was moved.
func (r *Registry) Files(pattern string) ([]string, error) {
	return filepath.Glob(filepath.Join(r.root, "docker", "registry", "v2", "repositories", pattern))
}

func (r *Registry) configure(dir string, o RegistryOptions) (string, error) {
	if err := os.MkdirAll(r.root, 0o755); err != nil {
		return "", err
	}
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: %t}\n  cache: {blobdescriptor: inmemory}\n", r.root, !o.NoDelete)
	if o.ReadOnly {
		text += "  maintenance: {readonly: {enabled: true}}\n"
	}
	text += "http:\n  addr: 127.0.0.1:0\n"
	if o.TLS {
		pair, err := writeServerCertificate(dir)
		if err != nil {
			return "", err
		}
		r.CA = pair.ca
		text += fmt.Sprintf("  tls: {certificate: %q, key: %q}\n", pair.certificate, pair.key)
	}
	if o.User != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(o.Password), bcrypt.MinCost)
		if err != nil {
			return "", err
		}
		users := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(users, fmt.Appendf(nil, "%s:%s\n", o.User, hash), 0o600); err != nil {
			return "", err
		}
		text += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", users)
	}
	name := filepath.Join(dir, "registry.yml")
	return name, os.WriteFile(name, []byte(text), 0o600)
}

// await reads the log until the server tells which port the kernel gave it; afterwards the log is drained and dropped.
func (r *Registry) await(log io.Reader) error {
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
	host, seen := make(chan string, 1), make(chan string, 1)
	go func() {
		var text string
		s := bufio.NewScanner(log)
		for s.Scan() {
			if m := listening.FindStringSubmatch(s.Text()); m != nil {
				host <- m[1]
			} else if len(text) < 4096 {
				text += s.Text() + "\n"
			}
		}
		seen <- text
	}()
	select {
	case r.Host = <-host:
		return nil
	case text := <-seen:
		return errors.New("distribution registry: it ended before it listened:\n" + text)
	case <-time.After(startLimit):
		return fmt.Errorf("distribution registry: it does not listen after %v", startLimit)
	}
}

// NewRegistry is StartRegistry for a test: a missing program skips it, and the server ends with it.
func NewRegistry(t *testing.T, o RegistryOptions) *Registry {
	t.Helper()
	Need(t, "docker-registry")
	r, err := StartRegistry(context.Background(), Dir(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}
