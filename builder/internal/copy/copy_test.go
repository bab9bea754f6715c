// SPDX-License-Identifier: Apache-2.0

package copy

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// grow makes a Tree of lines: "d path mode", "f path mode content", "l path target", "h path existing". The
// owner is 5:6 and the time 100, so that what a copy keeps can be told from what it makes.
func grow(t *testing.T, lines string) *tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		m := tree.Meta{UID: 5, GID: 6, MTime: 100}
		if f[0] == "d" || f[0] == "f" {
			if _, err := fmt.Sscanf(f[2], "%o", &m.Mode); err != nil {
				t.Fatal(err)
			}
		}
		var ino *tree.Inode
		switch f[0] {
		case "d":
			ino = tree.NewDir(m)
		case "f":
			ino = tree.NewFile(m, int64(len(f[3])), tree.Bytes(f[3]))
		case "l":
			m.Mode = 0o777
			ino = tree.NewSymlink(m, f[2])
		case "h":
			old := e.Lookup(f[2])
			ino = old.With(old.Meta)
			ino.Shared = true
			if err := e.Put(f[2], ino); err != nil {
				t.Fatal(err)
			}
		case "p":
			ino = tree.NewFifo(m)
		}
		if err := e.Put(f[1], ino); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return e.Commit()
}

const source = `
	d dir 0750
	f dir/a 0640 A
	d dir/sub 0700
	f dir/sub/b 4755 B
	l dir/link a
	l dir/abs /dir/sub
	f file 0644 F
	f file2 0600 G
	l tofile file
	l todir dir
	l broken nowhere
	d links 0755
	f links/one 0644 L
	h links/two links/one
	p pipe
	d many 0755
	d many/x1 0755
	f many/x1/f 0644 1
	d many/x2 0755
	f many/x2/f 0644 2
	l many/x3 x2`

const target = `
	d etc 0755
	f etc/passwd 0644 app:x:1000:1001::/:/bin/sh
	f etc/group 0644 staff:x:50:
	d app 0711
	f app/file 0600 old
	l current app
	l dangling /data/new
	f plain 0644 p
	l lfile app/file`

func TestApply(t *testing.T) {
	tests := []struct {
		name         string
		paths        []string
		files        []Item
		exclude      []string
		parents      bool
		dest         string
		chown, chmod string
		want         string // "path mode uid:gid time content" of what changed
		err          string
	}{
		{name: "file to file", paths: []string{"file"}, dest: "/new", want: "new 644 5:6 100 F"},
		{name: "leading slash and dots are clamped", paths: []string{"/../../file"}, dest: "/new", want: "new 644 5:6 100 F"},
		{name: "file into directory", paths: []string{"file2"}, dest: "/app", want: "app 711 5:6 now; app/file2 600 5:6 100 G"},
		{name: "file over file", paths: []string{"file"}, dest: "/app/", want: "app 711 5:6 now; app/file 644 5:6 100 F"},
		{name: "file, directory to make", paths: []string{"file"}, dest: "/x/y/", want: "x 755 0:0 now; x/y 755 0:0 now; x/y/file 644 5:6 100 F"},
		{name: "slash dot", paths: []string{"file"}, dest: "/x/.", want: "x 755 0:0 now; x/file 644 5:6 100 F"},
		{name: "directory contents", paths: []string{"dir"}, dest: "/n", want: "n 755 0:0 100; n/a 640 5:6 100 A; n/abs>/dir/sub; n/link>a; n/sub 700 5:6 100; n/sub/b 4755 5:6 100 B"},
		{name: "directory into existing keeps its mode", paths: []string{"dir/"}, dest: "/app", want: "app 711 5:6 100; app/a 640 5:6 100 A; app/abs>/dir/sub; app/link>a; app/sub 700 5:6 100; app/sub/b 4755 5:6 100 B"},
		{name: "source link to file is followed", paths: []string{"tofile"}, dest: "/d/", want: "d 755 0:0 now; d/tofile 644 5:6 100 F"},
		{name: "source link to directory is followed", paths: []string{"todir/sub"}, dest: "/d", want: "d 755 0:0 100; d/b 4755 5:6 100 B"},
		{name: "destination through link", paths: []string{"file2"}, dest: "/current/", want: "app 711 5:6 now; app/file2 600 5:6 100 G"},
		{name: "destination is link to file", paths: []string{"file2"}, dest: "/lfile", want: "app 711 5:6 now; app/file 600 5:6 100 G"},
		{name: "destination is dangling link", paths: []string{"file"}, dest: "/dangling", want: "data 755 0:0 now; data/new 644 5:6 100 F"},
		{name: "wildcard", paths: []string{"fil*"}, dest: "/d/", want: "d 755 0:0 now; d/file 644 5:6 100 F; d/file2 600 5:6 100 G"},
		{name: "wildcard matches directories: contents", paths: []string{"many/x[12]"}, dest: "/d/", want: "d 755 0:0 100; d/f 644 5:6 100 2"},
		{name: "wildcard does not go through links", paths: []string{"many/*/f"}, dest: "/d/", want: "d 755 0:0 now; d/f 644 5:6 100 2"},
		{name: "wildcard below a linked directory", paths: []string{"todir/s*"}, dest: "/d", want: "d 755 0:0 100; d/b 4755 5:6 100 B"},
		{name: "wildcard without a match", paths: []string{"zzz*"}, dest: "/never/", want: ""},
		{name: "hard links in one directory", paths: []string{"links"}, dest: "/d", want: "d 755 0:0 100; d/one 644 5:6 100 L; d/two=one"},
		{name: "hard links between matches are lost", paths: []string{"links/*"}, dest: "/d/", want: "d 755 0:0 now; d/one 644 5:6 100 L; d/two 644 5:6 100 L"},
		{name: "fifo", paths: []string{"pipe"}, dest: "/d", want: "d fifo"},
		{name: "several sources to one file", paths: []string{"file", "file2"}, dest: "/one", want: "one 600 5:6 100 G"},
		{name: "chown by name", paths: []string{"file"}, chown: "app:staff", dest: "/n/f", want: "n 755 1000:50 now; n/f 644 1000:50 100 F"},
		{name: "chown number", paths: []string{"dir/sub"}, chown: "7", dest: "/n", want: "n 755 7:7 100; n/b 4755 7:7 100 B"},
		{name: "chmod octal", paths: []string{"dir/sub"}, chmod: "2711", dest: "/n", want: "n 711 0:0 100; n/b 2711 5:6 100 B"},
		{name: "chmod symbolic", paths: []string{"dir"}, chmod: "u=rwX,go=rX", dest: "/n", want: "n 755 0:0 100; n/a 644 5:6 100 A; n/abs>/dir/sub; n/link>a; n/sub 755 5:6 100; n/sub/b 755 5:6 100 B"},
		{name: "heredoc", files: []Item{{Name: "f", Inode: tree.NewFile(tree.Meta{Mode: 0o644, MTime: 2e9}, 4, tree.Bytes("text"))}}, dest: "/d/", chmod: "755", want: "d 755 0:0 now; d/f 755 0:0 now text"},
		{name: "nothing new", paths: []string{"file"}, dest: "/app/../app/", chmod: "0600", want: "app 711 5:6 now; app/file 600 5:6 100 F"},

		{name: "exclude", paths: []string{"dir"}, exclude: []string{"a", "sub"}, dest: "/n", want: "n 755 0:0 100; n/abs>/dir/sub; n/link>a"},
		{name: "exclude, include again", paths: []string{"dir"}, exclude: []string{"*", "!sub/b"}, dest: "/n", want: "n 755 0:0 100; n/sub 700 5:6 now; n/sub/b 4755 5:6 100 B"},
		{name: "exclude does not hide a source", paths: []string{"file", "fil*2"}, exclude: []string{"file", "file2"}, dest: "/n/", want: "n 755 0:0 now; n/file 644 5:6 100 F; n/file2 600 5:6 100 G"},
		{name: "parents", paths: []string{"dir/sub/b"}, parents: true, dest: "/n", want: "n 755 0:0 now; n/dir 750 5:6 now; n/dir/sub 700 5:6 now; n/dir/sub/b 4755 5:6 100 B"},
		{name: "parents with pivot", paths: []string{"dir/./sub/b"}, parents: true, dest: "/n", want: "n 755 0:0 100; n/sub 700 5:6 now; n/sub/b 4755 5:6 100 B"},
		{name: "parents with wildcards", paths: []string{"**/f"}, parents: true, dest: "/n", want: "n 755 0:0 now; n/many 755 5:6 now; n/many/x1 755 5:6 now; n/many/x1/f 644 5:6 100 1; n/many/x2 755 5:6 now; n/many/x2/f 644 5:6 100 2"},
		{name: "parents of a directory", paths: []string{"./many/x1"}, parents: true, dest: "/app", want: "app 711 5:6 now; app/many 755 5:6 now; app/many/x1 755 5:6 100; app/many/x1/f 644 5:6 100 1"},
		{name: "parents keep a directory that is there", paths: []string{"dir/./../app/x"}, parents: true, dest: "/", err: `"/app/x": not found`},
		{name: "parents without a match", paths: []string{"nope/**"}, parents: true, dest: "/n", want: "n 755 0:0 now"},
		{name: "parents, missing", paths: []string{"dir/nope"}, parents: true, dest: "/n", err: `"/dir/nope": not found`},

		{name: "missing", paths: []string{"nope/x"}, dest: "/", err: `"/nope/x": not found`},
		{name: "wildcard below a missing directory", paths: []string{"nope/*"}, dest: "/", err: `"/nope": not found`},
		{name: "parents below a file", paths: []string{"file/./x"}, parents: true, dest: "/", err: `"/file/x": not found`},
		{name: "broken link", paths: []string{"broken"}, dest: "/", err: `"/broken": not found`},
		{name: "directory over file", paths: []string{"dir"}, dest: "/plain", err: "cannot copy to non-directory: /plain"},
		{name: "file with slash over file", paths: []string{"file"}, dest: "/plain/", err: "cannot copy to non-directory: /plain/"},
		{name: "file below file", paths: []string{"file"}, dest: "/plain/x", err: "cannot copy to non-directory: /plain/x"},
		{name: "bad octal", paths: []string{"file"}, chmod: "64a", dest: "/", err: "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777"},
		{name: "octal too large", paths: []string{"file"}, chmod: "77777", dest: "/", err: "invalid chmod parameter: '77777'. it should be octal string and between 0 and 07777"},
		{name: "bad pattern", paths: []string{"a[", "file"}, dest: "/", err: `source "a[": syntax error in pattern`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := grow(t, target)
			req := Request{Source: grow(t, source), Dest: tt.dest, Chown: tt.chown, Chmod: tt.chmod, Parents: tt.parents}
			for _, p := range tt.paths {
				req.Items = append(req.Items, Item{Path: p})
			}
			req.Items = append(req.Items, tt.files...)
			if tt.exclude != nil {
				m, err := dockerfile.NewMatcher(tt.exclude)
				if err != nil {
					t.Fatal(err)
				}
				req.Exclude = m
			}
			after, err := Apply(before, req)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, changes(t, before, after)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func changes(t *testing.T, before, after *tree.Tree) string {
	t.Helper()
	var out []string
	names := map[*tree.Inode]string{}
	err := tree.Diff(before, after, func(c tree.Change) error {
		if c.Inode == nil {
			out = append(out, "-"+c.Path)
			return nil
		}
		if first, ok := names[c.Inode]; ok && c.Inode.Shared {
			out = append(out, c.Path+"="+first[strings.LastIndex(first, "/")+1:])
			return nil
		}
		names[c.Inode] = c.Path
		out = append(out, describe(t, after, c))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "; ")
}

func describe(t *testing.T, tr *tree.Tree, c tree.Change) string {
	t.Helper()
	ino := c.Inode
	switch ino.Type {
	case tree.Symlink:
		return c.Path + ">" + ino.Link()
	case tree.Fifo:
		return c.Path + " fifo"
	}
	at := fmt.Sprint(ino.MTime)
	if ino.MTime > 1e9 {
		at = "now"
	}
	s := fmt.Sprintf("%s %o %d:%d %s", c.Path, ino.Mode, ino.UID, ino.GID, at)
	if ino.Type == tree.File {
		b, err := tr.ReadFile(c.Path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		s += " " + string(b)
	}
	return s
}

func TestCopyOfTheSameFileChangesNothing(t *testing.T) {
	before := grow(t, "d d 0755\nf d/f 0644 same")
	after, err := Apply(before, Request{Source: grow(t, "f f 0644 same"), Items: []Item{{Path: "f"}}, Dest: "/d/"})
	if err != nil {
		t.Fatal(err)
	}
	if got := changes(t, before, after); got != "" {
		t.Errorf("changes: %s", got)
	}
}

func TestArchive(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.Close()
	archive := grow(t, "d a 0700\nf a/x 0600 new\nd plain 0755\nf app 0644 now-a-file")
	before := grow(t, target)
	after, err := Apply(before, Request{
		Source: grow(t, "f f.tar 0644 x"), Items: []Item{{Path: "f.tar", Unpack: true}}, Dest: "/", Chown: "1:2", Chmod: "0777",
		Archive: func(*tree.Inode) (*tree.Tree, error) { return archive, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "a 700 1:2 100; a/x 600 1:2 100 new; app 644 1:2 100 now-a-file; plain 755 1:2 100"
	if d := cmp.Diff(want, changes(t, before, after)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
