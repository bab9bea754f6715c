// SPDX-License-Identifier: Apache-2.0

package buildcontext

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// write makes files below dir; a name that ends in a slash is a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t *testing.T, location, sub string) *Context {
	t.Helper()
	c, err := Open(location, sub)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func paths(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var out []string
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		if ino.UID != 0 || ino.GID != 0 {
			t.Errorf("%s has owner %d:%d", p, ino.UID, ino.GID)
		}
		out = append(out, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestTreeWithoutWhatIsIgnored(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"a": "", "b.log": "", "sub/c.log": "", "sub/keep.log": "", "sub/d": "",
		"node_modules/x/y": "", "node_modules/z": "", "empty/": "",
	})
	tests := []struct {
		name     string
		patterns []string
		want     string
	}{
		{"nothing", nil, "a b.log empty node_modules node_modules/x node_modules/x/y node_modules/z sub sub/c.log sub/d sub/keep.log"},
		{"pattern", []string{"*.log", "node_modules"}, "a empty sub sub/c.log sub/d sub/keep.log"},
		{"any depth", []string{"**/*.log", "node_modules", "empty"}, "a sub sub/d"},
		{"included again", []string{"**/*.log", "!sub/keep.log", "node_modules"}, "a empty sub sub/d sub/keep.log"},
		{"included again in an ignored directory", []string{"*", "!node_modules/x"}, "node_modules node_modules/x node_modules/x/y"},
		{"everything", []string{"*"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := dockerfile.NewMatcher(tt.patterns)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, paths(t, open(t, dir, "").Tree(m))); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"one": "1"})
	if err := errors.Join(
		os.Link(dir+"/one", dir+"/two"),
		os.Symlink("../../etc/passwd", dir+"/out"),
		unix.Mkfifo(dir+"/fifo", 0o600),
	); err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", dir+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	tr := open(t, dir, "").Tree(nil)
	want := map[string]tree.Type{"one": tree.File, "two": tree.File, "out": tree.Symlink, "fifo": tree.Fifo, "sock": tree.File}
	for p, typ := range want {
		if ino, err := tr.Lookup(p); err != nil || ino.Type != typ {
			t.Errorf("%s: %v, %v", p, ino, err)
		}
	}
	one, _ := tr.Lookup("one")
	two, _ := tr.Lookup("two")
	if one != two || !one.Shared {
		t.Error("two names of one file are two files")
	}
	if _, err := tr.ReadFile("out", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link out of the context: %v", err)
	}
}

func TestFileThatChangesIsAnError(t *testing.T) {
	changes := map[string]func(p string) error{
		"longer":  func(p string) error { return os.WriteFile(p, []byte("longer"), 0o600) },
		"removed": os.Remove,
		"link": func(p string) error {
			return errors.Join(os.Remove(p), os.Symlink("/etc/hostname", p))
		},
		"fifo": func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) },
	}
	for name, do := range changes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"d/f": "text"})
			ino, err := open(t, dir, "").Tree(nil).Lookup("d/f")
			if err != nil {
				t.Fatal(err)
			}
			if err := do(dir + "/d/f"); err != nil {
				t.Fatal(err)
			}
			if r, err := ino.Open(); err == nil {
				_ = r.Close()
				t.Error("no error")
			}
		})
	}
}

func TestDockerfileLookup(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, dir, map[string]string{"sub/my.Dockerfile": "in context", "sub/my.Dockerfile.dockerignore": "x", "dockerfile": "lower", "d/": "", "ctx/Dockerfile": "sub"})
	write(t, elsewhere, map[string]string{"Dockerfile": "absolute"})
	tests := []struct {
		name, sub, file string
		want            string
		ignore          string
		fails           bool
	}{
		{name: "in the context", file: "sub/my.Dockerfile", want: "in context", ignore: "x"},
		{name: "absolute", file: elsewhere + "/Dockerfile", want: "absolute"},
		{name: "lower case", file: "Dockerfile", want: "lower"},
		{name: "of the sub-directory", sub: "ctx", file: "Dockerfile", want: "sub"},
		{name: "missing", file: "nope", fails: true},
		{name: "a directory", file: "d", fails: true},
		{name: "a URL", file: "https://example.com/Dockerfile", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := open(t, dir, tt.sub).Dockerfile(tt.file)
			if (err != nil) != tt.fails {
				t.Fatalf("error %v", err)
			}
			if err == nil && (string(d.Data) != tt.want || string(d.Ignore) != tt.ignore) {
				t.Errorf("got %q with ignore file %q", d.Data, d.Ignore)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"file": ""})
	if err := os.Symlink("/", dir+"/out"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ location, sub string }{
		{dir + "/missing", ""},
		{"/", ""},
		{"/", "/"},
		{"/", "./"},
		{dir + "/out", ""},
		{dir + "/file", ""},
		{dir, "missing"},
		{dir, "out"},
		{dir, "../../etc"},
	} {
		if c, err := Open(tt.location, tt.sub); err == nil {
			_ = c.Close()
			t.Errorf("Open(%q, %q): no error", tt.location, tt.sub)
		}
	}
}

func TestContextThroughALink(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"real/a": ""})
	if err := os.Symlink("real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, open(t, dir+"/link", "").Tree(nil)); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestOpenFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "context.tar")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name, ""); err == nil || !strings.Contains(err.Error(), "tar://"+name) {
		t.Errorf("got %v", err)
	}
}

// TestOpenFifo reads a pipe that somebody writes to late, and waits for nobody longer than the build lives.
func TestOpenFifo(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
	if _, err := OpenFile(ctx, newStore(t), name, Options{}); !errors.Is(err, enough) {
		t.Errorf("nobody writes: %v", err)
	}
	wrote := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() { wrote <- os.WriteFile(name, archiveOf(t, item{name: "Dockerfile", data: "FROM scratch\n"}), 0) })
	c, err := OpenFile(t.Context(), newStore(t), name, Options{})
	if err := errors.Join(err, <-wrote); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if d, err := c.Dockerfile("Dockerfile"); err != nil || string(d.Data) != "FROM scratch\n" {
		t.Errorf("%v, %v", d, err)
	}
}
