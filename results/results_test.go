// SPDX-License-Identifier: Apache-2.0

package results

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func digest() v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)} }

// read gives the files below dir, and fails for any that is not a plain file
// with mode 0644.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode() != 0o644 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		content, err := os.ReadFile(path)
		got[strings.TrimPrefix(path, dir+"/")] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWrite(t *testing.T) {
	const other = "localhost:5000/x"
	d := digest().String()
	tests := []struct {
		name         string
		destinations []string
		want         map[string]string
	}{
		{
			"pushed",
			[]string{"r.example/a/b:1", "r.example/a/b:2", other},
			map[string]string{
				"IMAGE_DIGEST": d,
				"IMAGE_URL":    "r.example/a/b:1",
				"IMAGE_REF":    "r.example/a/b@" + d,
				"IMAGES":       "r.example/a/b@" + d + "\nlocalhost:5000/x@" + d,
				"digest":       d,
				"names":        "r.example/a/b@" + d + "\nr.example/a/b@" + d + "\nlocalhost:5000/x@" + d + "\n",
				"tags":         "r.example/a/b:1@" + d + "\nr.example/a/b:2@" + d + "\nlocalhost:5000/x:latest@" + d + "\n",
			},
		},
		{
			"not pushed", nil,
			map[string]string{
				"IMAGE_DIGEST": d, "IMAGE_URL": "", "IMAGE_REF": "", "IMAGES": "",
				"digest": d, "names": "", "tags": "",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := syscall.Umask(0o077)
			defer syscall.Umask(old)
			dir := t.TempDir()
			o := Outputs{
				Dir: dir, DigestFile: filepath.Join(dir, "digest"),
				NameFile: filepath.Join(dir, "names"), TagFile: filepath.Join(dir, "tags"),
			}
			if err := o.Probe(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{}, read(t, dir)); diff != "" {
				t.Errorf("the probe left files:\n%s", diff)
			}
			if err := o.Write(Image{Digest: digest(), Destinations: tt.destinations}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, read(t, dir)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := o.RemoveStale(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{}, read(t, dir)); diff != "" {
				t.Errorf("stale files are left:\n%s", diff)
			}
		})
	}
}

// TestInTheWay puts hostile things where results go, once before the start and
// once between the start and the writing.
func TestInTheWay(t *testing.T) {
	obstacles := []struct {
		name string
		make func(path, victim string) error
	}{
		{"file", func(path, _ string) error { return os.WriteFile(path, []byte("forged"), 0o600) }},
		{"symlink", func(path, victim string) error { return os.Symlink(victim, path) }},
		{"hardlink", func(path, victim string) error { return os.Link(victim, path) }},
		{"fifo", func(path, _ string) error { return syscall.Mkfifo(path, 0o600) }},
		{"directory", func(path, _ string) error { return os.Mkdir(path, 0o700) }},
	}
	for _, ob := range obstacles {
		for _, early := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/early=%v", ob.name, early), func(t *testing.T) {
				dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
				if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := ob.make(filepath.Join(dir, "IMAGE_URL"), victim); err != nil {
					t.Fatal(err)
				}
				o := Outputs{Dir: dir}
				if early {
					if err := o.RemoveStale(); err != nil {
						t.Fatal(err)
					}
					if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
						t.Fatalf("left at start: %v, %v", entries, err)
					}
				}
				if err := o.Write(Image{Digest: digest(), Destinations: []string{"r.example/a:1"}}); err != nil {
					t.Fatal(err)
				}
				if got := read(t, dir)["IMAGE_URL"]; got != "r.example/a:1" {
					t.Errorf("IMAGE_URL = %q", got)
				}
				if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
					t.Errorf("the file behind the link is %q, %v", got, err)
				}
			})
		}
	}
}

func TestWriteLeavesAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "IMAGES")
	if err := os.MkdirAll(filepath.Join(blocked, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := Outputs{Dir: dir, DigestFile: filepath.Join(dir, "digest")}
	if err := o.RemoveStale(); err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("RemoveStale: %v, want an error that names %s", err, blocked)
	}
	if err := o.Write(Image{Digest: digest(), Destinations: []string{"r.example/a:1"}}); err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("Write: %v, want an error that names %s", err, blocked)
	}
	if diff := cmp.Diff(map[string]string{}, read(t, dir)); diff != "" {
		t.Errorf("a failed write left files:\n%s", diff)
	}
}

func TestWriteLint(t *testing.T) {
	dir := t.TempDir()
	o := Outputs{Dir: dir}
	// What an earlier build and an earlier check left goes before a check starts.
	if err := o.Write(Image{Digest: digest(), Destinations: []string{"r.example/a:1"}}); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{`{"warnings":[1]}`, `{"warnings":null}`} {
		if err := errors.Join(o.RemoveStale(), o.Probe()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{}, read(t, dir)); diff != "" {
			t.Errorf("stale files are left:\n%s", diff)
		}
		if err := WriteLint(dir, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"LINT.json": content}, read(t, dir)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if err := WriteLint("", []byte("{}")); err != nil {
		t.Errorf("nobody asked: %v", err)
	}
	if err := WriteLint(filepath.Join(dir, "none"), []byte("{}")); err == nil {
		t.Error("no error for a directory that does not exist")
	}
}

// TestWriteLintInTheWay holds that a link is replaced, not followed.
func TestWriteLintInTheWay(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, lintName)); err != nil {
		t.Fatal(err)
	}
	if err := WriteLint(dir, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"LINT.json": "{}"}, read(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the file behind the link is %q, %v", got, err)
	}
}

func TestRemoveStaleTakesPreparedFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[odd*name]")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(file{filepath.Join(dir, "IMAGE_URL"), "x"}); err != nil {
		t.Fatal(err)
	}
	if err := (Outputs{Dir: dir}).RemoveStale(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{}, read(t, dir)); diff != "" {
		t.Errorf("what a killed run prepared is left:\n%s", diff)
	}
}

func TestProbeNamesTheDirectory(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// Below /proc no file can be made, not even by root.
	for _, dir := range []string{plain, plain + "/below", "/proc/self"} {
		err := Outputs{Dir: dir}.Probe()
		if err == nil || !strings.HasPrefix(err.Error(), "results directory "+dir+" cannot be written: ") {
			t.Errorf("results directory %s: %v", dir, err)
		}
		err = Outputs{DigestFile: dir + "/digest"}.Probe()
		if err == nil || !strings.Contains(err.Error(), dir+"/digest") {
			t.Errorf("digest file in %s: %v", dir, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "a", "b")
	if err := (Outputs{Dir: missing}).Probe(); err != nil {
		t.Errorf("a directory that can be made: %v", err)
	}
}

// TestMountPoint writes a digest to a file that is a mount, as kaniko's users
// do with /dev/termination-log.
func TestMountPoint(t *testing.T) {
	dir := t.TempDir()
	mount, source := filepath.Join(dir, "log"), filepath.Join(dir, "source")
	for _, f := range []string{mount, source} {
		if err := os.WriteFile(f, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount(source, mount, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("needs to mount a file: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	o := Outputs{DigestFile: mount}
	if err := o.RemoveStale(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(mount); err != nil || len(got) != 0 {
		t.Errorf("stale content is left: %q, %v", got, err)
	}
	if err := o.Probe(); err != nil {
		t.Fatal(err)
	}
	if err := o.Write(Image{Digest: digest()}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(source); err != nil || string(got) != digest().String() {
		t.Errorf("got %q, %v", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestCheck(t *testing.T) {
	o := Outputs{Dir: "/tekton/results", Limit: TektonLimit}
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("registry.example.com/team/project/image-%02d:v1.2.3", i))
	}
	if err := o.Check(many[:10]); err != nil {
		t.Errorf("10 destinations: %v", err)
	}
	if err := o.Check(many); err == nil || !strings.Contains(err.Error(), "40 destinations take") {
		t.Errorf("40 destinations: %v", err)
	}
	if err := o.Check([]string{"not a reference"}); err == nil {
		t.Error("a bad reference passes")
	}
	o.Limit = 0
	if err := o.Check(many); err != nil {
		t.Errorf("without limit: %v", err)
	}
}

func TestWriteCause(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if err := WriteCause(log, "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a log that does not exist: %v", err)
	}
	if err := os.WriteFile(log, []byte(strings.Repeat("old", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteCause(log, "Dockerfile:3: a\n\tb "+strings.Repeat("é", 1000)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if err != nil || !strings.HasPrefix(string(got), "Dockerfile:3: a b é") || len(got) > maxCause || len(got) < maxCause-2 {
		t.Errorf("got %q (%d bytes), %v", got, len(got), err)
	}
	if strings.ToValidUTF8(string(got), "?") != string(got) {
		t.Errorf("a rune was cut: %q", got)
	}
	if err := WriteCause("", "x"); err != nil {
		t.Error(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- WriteCause(fifo, "x") }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a FIFO was written")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("waits for the reader of a FIFO")
	}
}

func TestProgress(t *testing.T) {
	dir := t.TempDir()
	p := Progress{Path: filepath.Join(dir, "progress")}
	for _, step := range []struct {
		done, total int
		want        string
	}{{0, 3, "0/3"}, {2, 3, "2/3"}, {4, 3, "2/3"}, {0, 0, "2/3"}, {3, 3, "3/3"}} {
		if err := p.Set(step.done, step.total); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"progress": step.want}, read(t, dir)); diff != "" {
			t.Errorf("after %d/%d:\n%s", step.done, step.total, diff)
		}
	}
	if err := (Progress{}).Set(1, 2); err != nil {
		t.Error(err)
	}
	if err := (Progress{Path: filepath.Join(dir, "no", "progress")}).Set(1, 2); err == nil {
		t.Error("no error for a directory that does not exist")
	}
}
