// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// FuzzRoundTrip does what the input spells in a root on disk. What the snapshot finds must be what the disk holds, and must be
// the same after it went through a layer. Sockets are in no layer.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("\x00\x01\x12\x03\x24\x05\x36\x07\x48\x09\x5a\x0b\x6c\x0d"))
	f.Add([]byte("\x80\x03\x70\x00\x20\x05\x90\x07\x11\x11\xa0\x02"))
	if os.Geteuid() != 0 {
		f.Skip("needs root, to give files other owners")
	}
	s, err := store.Open(f.TempDir(), "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 120 {
			t.Skip("long inputs say nothing new")
		}
		dir, root, prev := t.TempDir(), (*os.File)(nil), sample(t)
		root = open(t, dir)
		if _, err := unpack.Apply(t.Context(), root, tree.Empty(), prev, unpack.Plain); err != nil {
			t.Fatal(err)
		}
		rec, err := NewRecord(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		for ; len(ops) >= 2; ops = ops[2:] {
			perform(dir, ops[0], ops[1])
		}
		raw, _, err := Walk(t.Context(), root, rec, prev, Options{})
		if err != nil {
			t.Fatal(err)
		}
		copied := t.TempDir()
		if _, err := unpack.Apply(t.Context(), open(t, copied), tree.Empty(), raw, unpack.Plain); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(withoutNames(t, dir), withoutNames(t, copied)); d != "" {
			t.Fatalf("the snapshot is not what the disk holds (-disk +unpacked):\n%s", d)
		}
		canon, changes, err := tree.Canon(prev, raw, tree.Times{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		applied, err := throughLayer(t, s, prev, changes)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(describe(t, canon), describe(t, applied)); d != "" {
			t.Fatalf("the layer is not the snapshot (-snapshot +layer):\n%s", d)
		}
	})
}

// withoutNames is onDisk without the number of names of what is no directory: a further name of a file that is otherwise as
// it was becomes a file of its own, as with BuildKit, for the layer that holds the file is not the one that is made.
func withoutNames(t *testing.T, dir string) string {
	t.Helper()
	sockets := regexp.MustCompile(`(?m)^".*" 14\d{4} .*\n?`)
	names := regexp.MustCompile(`(?m)^(".*" (?:1[02]|[26]).* (?:now|-?[0-9]+)) [0-9]+`)
	return strings.TrimSuffix(names.ReplaceAllString(sockets.ReplaceAllString(onDisk(t, dir), ""), "$1"), "\n")
}

func throughLayer(t *testing.T, s *store.Store, prev *tree.Tree, changes []tree.Change) (*tree.Tree, error) {
	t.Helper()
	l, err := layer.Write(t.Context(), s, changes, layer.Compression{Algorithm: "gzip", Level: 1})
	if err != nil {
		return nil, err
	}
	in, err := layer.Ingest(t.Context(), s, l, true)
	if err != nil {
		return nil, err
	}
	return in.Index.Apply(prev)
}

// perform does one thing to one path. What cannot be done, because of what is there, is as good as nothing.
func perform(dir string, what, where byte) {
	names := []string{"bin", "bin/su", "bin/one", "closed", "closed/deep", "closed/deep/two", "closed/f", "dev", "a", "a/b", "a/b/c", "link", "empty", "bin/a", "\xff", "closed/deep/n"}
	p, q := filepath.Join(dir, names[where&15]), filepath.Join(dir, names[where>>4])
	for _, parent := range []string{filepath.Dir(p), filepath.Dir(q)} {
		if real, err := filepath.EvalSymlinks(parent); err != nil || real != parent {
			return // through a link of the root, perhaps out of it
		}
	}
	at := time.Unix(1_000_000, 0)
	switch what & 15 {
	case 0:
		_ = os.Mkdir(p, 0o755)
	case 1:
		if st, err := os.Lstat(p); err != nil || st.Mode().IsRegular() {
			_ = os.WriteFile(p, []byte(strings.Repeat("x", int(what>>4))), 0o644)
		}
	case 2:
		_ = os.RemoveAll(p)
	case 3:
		_ = os.Symlink(names[what>>4], p)
	case 4:
		_ = os.Lchown(p, int(what>>4), 7)
	case 5:
		_ = os.Rename(p, q)
	case 6:
		_ = os.Link(p, q)
	case 7:
		_ = unix.Mknod(p, unix.S_IFIFO|0o600, 0)
	case 8:
		_ = unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
	case 9:
		_ = unix.Mknod(p, unix.S_IFSOCK|0o600, 0)
	case 10:
		if st, err := os.Lstat(p); err == nil && st.Mode()&os.ModeSymlink == 0 {
			_ = os.Chmod(p, os.FileMode(what>>4)|0o700)
		}
	case 11: // written and the time set back
		if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() {
			_ = os.WriteFile(p, []byte("us"), 0o600)
			_ = os.Chtimes(p, at, at)
		}
	case 12:
		if st, err := os.Lstat(p); err == nil && st.IsDir() {
			_ = os.Chtimes(p, at, at)
		}
	case 13:
		_ = unix.Lsetxattr(p, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00"+strings.Repeat("\x00", 12)), 0)
	case 14:
		_ = os.RemoveAll(p)
		_ = os.MkdirAll(p, 0o700)
	case 15:
		_ = os.Rename(p, p+".was")
	}
}

// describe is all of a Tree in words, with the names that are one inode.
func describe(t *testing.T, tr *tree.Tree) map[string]string {
	t.Helper()
	out, first := map[string]string{}, map[*tree.Inode]string{}
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		major, minor := ino.Device()
		line := fmt.Sprintf("%v %o %d:%d %d %d %q %d:%d %q", ino.Type, ino.Mode, ino.UID, ino.GID, ino.MTime, ino.Size, ino.Link(), major, minor, ino.Xattrs)
		if ino.Type == tree.File {
			r, err := ino.Open()
			if err != nil {
				return err
			}
			content, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", content)
		}
		if f, ok := first[ino]; ok {
			line += " = " + f
		} else if ino.Shared {
			first[ino] = p
		}
		out[p] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
