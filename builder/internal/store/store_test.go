// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

func hash(t *testing.T, s string) v1.Hash {
	t.Helper()
	h, _, err := v1.SHA256(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestCloseLeavesNothing(t *testing.T) {
	top := t.TempDir()
	s, err := Open(filepath.Join(top, "a", "b"), "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(hash(t, "x")); err != nil {
		t.Fatal(err)
	}
	dir, err := s.TempDir("root-")
	if err != nil {
		t.Fatal(err)
	}
	// As a RUN may leave it.
	if err := os.MkdirAll(filepath.Join(dir, "closed", "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "closed"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(top); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOpenSweepsDeadBuildsOnly(t *testing.T) {
	dir := t.TempDir()
	alive, err := Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, runPrefix+"dead")
	if err := os.MkdirAll(filepath.Join(dead, "roots", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "somebody-else")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{alive.Dir(): true, s.Dir(): true, dead: false, other: true} {
		if _, err := os.Stat(p); (err == nil) != want {
			t.Errorf("%s: %v, should be there: %v", p, err, want)
		}
	}
	if err := errors.Join(s.Close(), alive.Close()); err != nil {
		t.Error(err)
	}
}

func TestBlobs(t *testing.T) {
	s, err := Open(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	b, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(v1.Hash{Algorithm: "sha256", Hex: "../../../x"}); err == nil {
		t.Error("a digest that leads out of the store was taken")
	}
	b.Abort()
	if _, err := s.Open(hash(t, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a blob that never was: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(s.Dir(), "tmp")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestTempDirInheritsNoGroup(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chown(dir, -1, 4242); err != nil {
		t.Skipf("needs root, to give a directory another group: %v", err)
	}
	if err := os.Chmod(dir, os.ModeSetgid|0o2777); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.TempDir("root-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d, "in"), &st); err != nil || int(st.Gid) != os.Getegid() || st.Mode&unix.S_ISGID != 0 {
		t.Errorf("group %d, mode %o, %v", st.Gid, st.Mode, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFallbackDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open("", filepath.Join(file, "x"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.Dir(), os.Getenv("TMPDIR")) {
		t.Errorf("the store is in %s", s.Dir())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(file, "x"), ""); err == nil {
		t.Error("a directory that was asked for and cannot be made is no error")
	}
}
