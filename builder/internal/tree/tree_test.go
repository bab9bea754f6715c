// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// make builds a Tree from lines "d path", "f path content", "l path target".
func build(t *testing.T, lines string) *Tree {
	t.Helper()
	return change(t, Empty(), lines)
}

// change applies lines as build has them, and "r path" to remove, to a Tree.
func change(t *testing.T, tr *Tree, lines string) *Tree {
	t.Helper()
	e := tr.Edit()
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var err error
		switch f[0] {
		case "d":
			err = e.Put(f[1], NewDir(Meta{Mode: 0o755}))
		case "f":
			err = e.Put(f[1], NewFile(Meta{Mode: 0o644}, int64(len(f[2])), Bytes(f[2])))
		case "l":
			err = e.Put(f[1], NewSymlink(Meta{Mode: 0o777}, f[2]))
		case "m":
			err = e.SetMeta(f[1], Meta{Mode: 0o700})
		case "t":
			err = e.SetMeta(f[1], Meta{Mode: 0o755, MTime: 5})
		case "r":
			err = e.Remove(f[1])
		default:
			t.Fatalf("line %q", line)
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return e.Commit()
}

func TestResolve(t *testing.T) {
	tr := build(t, `
		d a
		d a/b
		f a/b/file x
		l abs /a/b
		l rel a/../a/b
		l up ../../../a
		l loop loop
		l dangling /nowhere/x
		l a/root /
		f plain x`)
	tests := []struct {
		path string
		last bool
		real string
		typ  string // "" when missing
		err  error
	}{
		{path: "/", real: "", typ: "directory"},
		{path: "abs/file", real: "a/b/file", typ: "file"},
		{path: "/rel/./file", real: "a/b/file", typ: "file"},
		{path: "up/b", real: "a/b", typ: "directory"},
		{path: "abs", last: true, real: "a/b", typ: "directory"},
		{path: "abs", real: "abs", typ: "symbolic link"},
		{path: "../../a/root/a/b/..", real: "a", typ: "directory"},
		{path: "loop/x", err: ErrLoop},
		{path: "loop", last: true, err: ErrLoop},
		{path: "dangling", last: true, real: "nowhere/x"},
		{path: "a/new/../other", real: "a/other"},
		{path: "plain/x", real: "", err: ErrNotDir},
		{path: "plain/..", err: ErrNotDir},
	}
	for _, tt := range tests {
		for name, resolve := range map[string]func(string, bool) (string, *Inode, error){"tree": tr.Resolve, "editor": tr.Edit().Resolve} {
			real, ino, err := resolve(tt.path, tt.last)
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Errorf("%s: Resolve(%q, %v): error %v, want %v", name, tt.path, tt.last, err, tt.err)
				continue
			}
			if err != nil {
				continue
			}
			typ := ""
			if ino != nil {
				typ = ino.Type.String()
			}
			if real != tt.real || typ != tt.typ {
				t.Errorf("%s: Resolve(%q, %v) = %q, %q; want %q, %q", name, tt.path, tt.last, real, typ, tt.real, tt.typ)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	base := `
		d etc
		f etc/passwd x
		d usr
		d usr/bin
		f usr/bin/a x
		f usr/bin/b x
		d var`
	tests := []struct {
		name, edit string
		want       string
	}{
		{"nothing", ``, ``},
		{"put the same directory metadata", "t etc", ``},
		{"add below unchanged directories", "f usr/bin/c y", "+usr +usr/bin +usr/bin/c"},
		{"parents once", "f usr/bin/c y\nf usr/bin/a y", "+usr +usr/bin +usr/bin/a +usr/bin/c"},
		{"remove", "r usr/bin/a", "+usr +usr/bin -usr/bin/a"},
		{"remove a directory", "r usr", "-usr"},
		{"directory metadata", "m usr", "+usr"},
		{"removed and made again", "r usr\nd usr\nf usr/new x", "+usr -usr/bin +usr/new"},
		{"file over directory", "f usr x", "+usr"},
		{"directory over file", "d etc/passwd\nf etc/passwd/x y", "+etc +etc/passwd +etc/passwd/x"},
		{"new tree", "d new\nd new/d\nf new/d/f x\nf new/a x", "+new +new/a +new/d +new/d/f"},
		{"name order is by component", "d usr/bin.d\nf usr/bin/z x", "+usr +usr/bin +usr/bin/z +usr/bin.d"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			prev := build(t, base)
			next := change(t, prev, tt.edit)
			canon, changes, err := Canon(prev, next, Times{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, describe(changes)); d != "" {
				t.Errorf("changes (-want +got):\n%s", d)
			}
			_, again, err := Canon(canon, next, Times{}, nil)
			if err != nil || len(again) != 0 {
				t.Errorf("after applying the changes Diff still finds %q, %v", describe(again), err)
			}
		})
	}
}

func describe(changes []Change) string {
	var out []string
	for _, c := range changes {
		sign := "+"
		if c.Inode == nil {
			sign = "-"
		}
		out = append(out, sign+c.Path)
	}
	return strings.Join(out, " ")
}

func TestOldTreeStaysAsItWas(t *testing.T) {
	prev := build(t, "d a\nf a/x 1")
	next := change(t, prev, "f a/x 22\nf a/y 1\nr a/x\nm a")
	if ino, err := prev.Lookup("a/x"); err != nil || ino.Size != 1 {
		t.Errorf("a/x of the old tree: %v, %v", ino, err)
	}
	if _, err := prev.Lookup("a/y"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a/y of the old tree: %v", err)
	}
	if ino, err := next.Lookup("a"); err != nil || ino.Mode != 0o700 {
		t.Errorf("a of the new tree: %v, %v", ino, err)
	}
}

func TestEditThatChangesNothingKeepsTheTree(t *testing.T) {
	prev := build(t, "d a\nf a/x 1")
	e := prev.Edit()
	if e.Lookup("a/x") == nil || e.Commit().Root() != prev.Root() {
		t.Error("looking around in an editor made another tree")
	}
}

func TestLazyDirectory(t *testing.T) {
	loads := 0
	root := NewLazyDir(Meta{Mode: 0o755}, func() ([]Entry, error) {
		loads++
		return []Entry{{"b", NewDir(Meta{})}, {"a", NewLazyDir(Meta{}, func() ([]Entry, error) { return nil, fs.ErrPermission })}}, nil
	})
	tr := FromRoot(root)
	for range 2 {
		if _, err := tr.Lookup("b"); err != nil {
			t.Fatal(err)
		}
	}
	if loads != 1 {
		t.Errorf("read %d times", loads)
	}
	if _, err := tr.Lookup("a/x"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error of an unreadable directory: %v", err)
	}
}

func TestAccounts(t *testing.T) {
	tr := build(t, "d etc")
	e := tr.Edit()
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n",
		"group":  "root:x:0:root\napp:x:1001:\nextra:x:50:app,root\n",
	} {
		if err := e.Put("etc/"+name, NewFile(Meta{Mode: 0o644}, int64(len(text)), Bytes(text))); err != nil {
			t.Fatal(err)
		}
	}
	tr = e.Commit()
	accounts := []struct{ spec, want string }{
		{"", "0:0 [0 50] /root"},
		{"root", "0:0 [0 50] /root"},
		{"app", "1000:1001 [1001 50] /home/app"},
		{"1000", "1000:1001 [1001 50] /home/app"},
		{"4242", "4242:0 [0] /"},
		{"4242:77", "4242:77 [77] /"},
		{"app:extra", "1000:50 [50] /home/app"},
		{"nobody", "error"},
		{"app:nogroup", "error"},
	}
	for _, tt := range accounts {
		a, err := tr.Account(tt.spec)
		got := fmt.Sprintf("%d:%d %v %s", a.UID, a.GID, a.Groups, a.Home)
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("Account(%q) = %s (%v), want %s", tt.spec, got, err, tt.want)
		}
	}
	owners := []struct {
		tree *Tree
		spec string
		want string
	}{
		{tr, "1:2", "1:2"},
		{tr, "7", "7:7"},
		{tr, "app", "1000:1001"},
		{tr, "app:", "1000:1001"},
		{tr, "app:unknown", "1000:1001"},
		{tr, "7:unknown", "7:7"},
		{tr, ":extra", "0:50"},
		{tr, "unknown:unknown", "0:0"},
		{Empty(), "7", "7:7"},
		{Empty(), "root:root", "0:0"},
		{Empty(), "app", "error"},
		{Empty(), "7:app", "error"},
	}
	for _, tt := range owners {
		uid, gid, err := tt.tree.Owner(tt.spec)
		got := fmt.Sprintf("%d:%d", uid, gid)
		if err != nil {
			got = "error"
		}
		if got != tt.want {
			t.Errorf("Owner(%q) = %s (%v), want %s", tt.spec, got, err, tt.want)
		}
	}
}
