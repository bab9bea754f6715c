// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// TestWalkAround: what is kept is in no Tree, and what is written on the way to it comes to where the image's links lead.
func TestWalkAround(t *testing.T) {
	m := tree.Meta{Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	image := func(entries ...tree.Entry) *tree.Tree { return tree.FromRoot(tree.NewDir(m, entries...)) }
	dir := func(name string) tree.Entry { return tree.Entry{Name: name, Inode: tree.NewDir(m)} }
	link := func(name, to string) tree.Entry {
		return tree.Entry{Name: name, Inode: tree.NewSymlink(tree.Meta{Mode: 0o777}, to)}
	}
	for _, c := range []struct {
		name  string
		prev  *tree.Tree
		write []string
		want  string
		fails bool
	}{
		{"into a mount", image(dir("run")), []string{"run/secrets/token/x"}, "", false},
		{"beside one", image(dir("run")), []string{"run/secrets/x"}, "run run/secrets run/secrets/x", false},
		{"in a directory that the image lacks", image(), []string{"run/secrets/x"}, "run run/secrets run/secrets/x", false},
		{"where the image has a link", image(dir("var"), link("run", "var")), []string{"run/x"}, "var var/x", false},
		{"deep where the image has a link", image(dir("var"), link("run", "/var")), []string{"run/secrets/x"}, "var var/secrets var/secrets/x", false},
		{"where the image has a dangling link", image(link("run", "nowhere")), []string{"run/x"}, "", true},
		{"where the image has a file", image(tree.Entry{Name: "run", Inode: tree.NewFile(tree.Meta{}, 0, nil)}), []string{"run/x"}, "", true},
		{"elsewhere", image(dir("run")), []string{"new"}, "new", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.MkdirAll(filepath.Join(path, "run/secrets/token"), 0o755); err != nil {
				t.Fatal(err)
			}
			kept := &dirfd.Kept{}
			kept.Add("run/secrets/token")
			root := open(t, path)
			rec, err := RecordAround(t.Context(), root, kept)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range c.write {
				if err := os.WriteFile(filepath.Join(path, name), []byte("x"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			raw, _, err := Walk(t.Context(), root, rec, c.prev, Options{Kept: kept})
			if (err != nil) != c.fails {
				t.Fatalf("error %v, want one: %v", err, c.fails)
			}
			if err != nil {
				return
			}
			_, changes, err := tree.Canon(c.prev, raw, tree.Times{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ch := range changes {
				got = append(got, ch.Path)
			}
			if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
				t.Errorf("changes (-want +got):\n%s", d)
			}
		})
	}
}

// TestMove: contents stay readable when their files are put aside and others take their place, also by a reader at work.
func TestMove(t *testing.T) {
	path := t.TempDir()
	root, aside := open(t, path), open(t, t.TempDir())
	rec, err := NewRecord(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "first")
	write("b", "second")
	if err := os.Link(filepath.Join(path, "b"), filepath.Join(path, "c")); err != nil {
		t.Fatal(err)
	}
	before, _, err := Walk(t.Context(), root, rec, tree.Empty(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := before.Lookup("a")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := a.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	if err := Move(root, before, aside); err != nil {
		t.Fatal(err)
	}
	write("a", "other")
	write("b", "other")
	for name, want := range map[string]string{"a": "first", "b": "second", "c": "second"} {
		got, err := before.ReadFile(name, 100)
		if err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
	}
	if got, err := io.ReadAll(reader); err != nil || string(got) != "first" {
		t.Errorf("the reader got %q, %v", got, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(path, "c"), &st); err != nil || st.Nlink != 2 {
		t.Errorf("the second name: %d links, %v: it is not the moved one's any more", st.Nlink, err)
	}
	if err := Move(root, before, aside); err != nil {
		t.Errorf("a second time: %v", err)
	}
}
