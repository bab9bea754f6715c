// SPDX-License-Identifier: Apache-2.0

// Package testenv gives the end-to-end tests and the benchmarks the real parts that kaniko-go meets in use: Debian's
// distribution registry (plain, or with TLS and a password), base images made from Debian packages, ways to start the built
// binary as different kinds of pod start it, and a foreign client that pulls and runs what was pushed. It holds no mock and
// no expectation about kaniko-go; those are in the tests.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Need skips the test when a program is missing, with a reason that says how to get it.
func Need(t *testing.T, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		t.Skipf("not installed: %s (on Debian as root: e2e/packages.sh)", strings.Join(missing, ", "))
	}
}

// NeedRoot skips the test when it does not run as root of this machine.
func NeedRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts the builder as different users, or makes a file system tree with several owners")
	}
}

// Dir makes a directory that any user may enter (unlike t.TempDir) and removes it, whoever owns what is in it.
func Dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kaniko-go-e2e-") //nolint:usetesting // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left below %s: %v", dir, err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// CacheDir is where things that are dear to make outlive a run, by name and version.
func CacheDir(elements ...string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	dir := filepath.Join(append([]string{cache, "kaniko-go"}, elements...)...)
	return dir, os.MkdirAll(dir, 0o755)
}
