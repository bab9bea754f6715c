// SPDX-License-Identifier: Apache-2.0

package unpack_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// around is a root in which some things are not ours.
type around struct {
	t    *testing.T
	path string
	dir  *os.File
	kept *dirfd.Kept
}

func newAround(t *testing.T) *around {
	t.Helper()
	a := &around{t: t, path: t.TempDir(), kept: &dirfd.Kept{}}
	for name, text := range map[string]string{"etc/hosts": "theirs", "mnt/a b/deep/file": "theirs", "run/token/now": "theirs"} {
		if err := os.MkdirAll(filepath.Join(a.path, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(a.path, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"etc/hosts", "mnt/a b", "run/token"} {
		a.kept.Add(p)
	}
	var err error
	if a.dir, err = os.Open(a.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.dir.Close() })
	return a
}

// has lists the root: path -> content, link target, or "/" for a directory.
func (a *around) has() map[string]string {
	a.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(a.path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == a.path {
			return err
		}
		name, _ := filepath.Rel(a.path, p)
		switch {
		case d.IsDir():
			out[name] = "/"
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			out[name] = "-> " + target
			return err
		default:
			b, err := os.ReadFile(p)
			out[name] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func text(s string) *tree.Inode {
	return tree.NewFile(tree.Meta{Mode: 0o644}, int64(len(s)), tree.Bytes(s))
}

func folder(entries ...tree.Entry) *tree.Inode {
	return tree.NewDir(tree.Meta{Mode: 0o755}, entries...)
}

func TestAround(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives files to uid 0")
	}
	theirs := map[string]string{
		"etc": "/", "etc/hosts": "theirs", "mnt": "/", "mnt/a b": "/", "mnt/a b/deep": "/", "mnt/a b/deep/file": "theirs",
		"run": "/", "run/token": "/", "run/token/now": "theirs",
	}
	with := func(more map[string]string) map[string]string {
		for k, v := range theirs {
			if _, ok := more[k]; !ok {
				more[k] = v
			}
		}
		return more
	}
	image := tree.FromRoot(folder(
		tree.Entry{Name: "etc", Inode: folder(tree.Entry{Name: "hosts", Inode: text("image")}, tree.Entry{Name: "passwd", Inode: text("image")})},
		tree.Entry{Name: "mnt", Inode: folder(tree.Entry{Name: "a b", Inode: folder(tree.Entry{Name: "deep", Inode: folder(tree.Entry{Name: "file", Inode: text("image")})}, tree.Entry{Name: "x", Inode: text("image")})}, tree.Entry{Name: "y", Inode: text("image")})},
		tree.Entry{Name: "run", Inode: tree.NewSymlink(tree.Meta{Mode: 0o777}, "var")},
	))
	a := newAround(t)
	steps := []struct {
		name       string
		prev, next *tree.Tree
		skipped    []string
		want       map[string]string
	}{
		{
			"what the image has in their place is left out", tree.Empty(), image,
			[]string{"etc/hosts", "mnt/a b", "mnt/a b/deep", "mnt/a b/deep/file", "mnt/a b/x", "run"},
			with(map[string]string{"etc/passwd": "image", "mnt/y": "image"}),
		},
		{
			"a directory with theirs becomes a file", image, tree.FromRoot(folder(tree.Entry{Name: "etc", Inode: text("file")}, tree.Entry{Name: "mnt", Inode: tree.NewSymlink(tree.Meta{}, "etc")})),
			[]string{"etc", "mnt"},
			with(map[string]string{}),
		},
		{
			"it is removed", image, tree.Empty(), nil, with(map[string]string{}),
		},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			skipped, err := unpack.Around(context.Background(), a.dir, s.prev, s.next, a.kept)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(skipped)
			if d := cmp.Diff(s.skipped, skipped); d != "" {
				t.Errorf("skipped (-want +got):\n%s", d)
			}
			if d := cmp.Diff(s.want, a.has()); d != "" {
				t.Errorf("root (-want +got):\n%s", d)
			}
		})
	}
}

func TestClear(t *testing.T) {
	a := newAround(t)
	before := a.has()
	for _, p := range []string{"new/deep/dir", "etc/dir", "mnt/dir"} {
		if err := os.MkdirAll(filepath.Join(a.path, p), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"file", "etc/file", "run/file", "new/deep/dir/file"} {
		if err := os.WriteFile(filepath.Join(a.path, p), nil, 0o000); err != nil {
			t.Fatal(err)
		}
	}
	// A link out of the root is removed, and what it leads to is not.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"link": filepath.Dir(outside), "etc/link": outside, "new/link": "/"} {
		if err := os.Symlink(to, filepath.Join(a.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unpack.Clear(a.dir, a.kept); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, a.has()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}
