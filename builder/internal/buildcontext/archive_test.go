// SPDX-License-Identifier: Apache-2.0

package buildcontext

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// item is an entry of an archive; with neither a link nor a size it is a file with the data.
type item struct {
	name, data, link string
	kind             byte
	uid              int
}

func archiveOf(t *testing.T, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := &tar.Header{Name: i.name, Mode: 0o644, Size: int64(len(i.data)), Linkname: i.link, Typeflag: i.kind, Uid: i.uid}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, i.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compressed(t *testing.T, how string, data []byte) []byte {
	t.Helper()
	var (
		b   bytes.Buffer
		w   io.WriteCloser
		err error
	)
	switch how {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	default:
		return data
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// input gives bytes, again if asked.
func input(data []byte) Input {
	return Input{
		Reader: bytes.NewReader(data),
		Again:  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}
}

// listing is what a Tree has: contents of files, targets of links, owners that are not 0.
func listing(t *testing.T, tr *tree.Tree) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		switch {
		case ino.UID != 0 || ino.GID != 0:
			got[p] = "not owned by 0:0"
		case ino.Type == tree.Symlink:
			got[p] = "-> " + ino.Link()
		case ino.Type == tree.File:
			r, err := ino.Open()
			if err != nil {
				return err
			}
			data, err := io.ReadAll(r)
			got[p] = string(data)
			return err
		case ino.Type != tree.Dir:
			got[p] = ino.Type.String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestArchiveKinds(t *testing.T) {
	plain := archiveOf(t, item{name: "./Dockerfile", data: "FROM scratch\n", uid: 7}, item{name: "./d/a", data: "a"}, item{name: "l", link: "d/a", kind: tar.TypeSymlink})
	want := map[string]string{"Dockerfile": "FROM scratch\n", "d/a": "a", "l": "-> d/a"}
	for _, how := range []string{"plain", "gzip", "zstd", "xz"} {
		t.Run(how, func(t *testing.T) {
			data := compressed(t, how, plain)
			file := filepath.Join(t.TempDir(), "context")
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			onDisk, err := OpenFile(t.Context(), newStore(t), file, Options{Dockerfile: "Dockerfile"})
			if err != nil {
				t.Fatal(err)
			}
			streamed, err := OpenArchive(t.Context(), newStore(t), "stream", input(data), Options{Dockerfile: "Dockerfile"})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []*Context{onDisk, streamed} {
				if diff := cmp.Diff(want, listing(t, c.Tree(nil))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestArchiveSelects keeps what is asked for, whether it comes before or after the Dockerfile, and reads again what a link leads to.
func TestArchiveSelects(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16)
	data := compressed(t, "gzip", archiveOf(
		t, item{name: "early/no", data: big}, item{name: "early/yes", data: "1"}, item{name: "Dockerfile", data: "D"},
		item{name: "late/no", data: big}, item{name: "early/late", data: "2"}, item{name: "link", link: "late", kind: tar.TypeSymlink}))
	opened := 0
	in := input(data)
	again := in.Again
	in.Again = func() (io.ReadCloser, error) { opened++; return again() }
	var seen string
	c, err := OpenArchive(t.Context(), newStore(t), "x", in, Options{Dockerfile: "Dockerfile", Select: func(d *Dockerfile) (func(string) bool, error) {
		seen = string(d.Data)
		return func(name string) bool { return strings.HasPrefix(name, "early/") && name != "early/no" }, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if seen != "D" {
		t.Errorf("the Dockerfile was %q", seen)
	}
	if _, passed := c.Kept(); passed != int64(len(big)) {
		t.Errorf("%d bytes were passed over, not %d", passed, len(big))
	}
	for name, want := range map[string]string{"early/yes": "1", "early/late": "2"} {
		if got, err := c.Tree(nil).ReadFile(name, 10); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if opened != 0 {
		t.Error("the archive was read again for nothing")
	}
	for _, name := range []string{"link/no", "early/no"} {
		if got, err := c.Tree(nil).ReadFile(name, 2<<20); err != nil || string(got) != big {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestArchiveSubDirectory(t *testing.T) {
	data := archiveOf(t, item{name: "Dockerfile", data: "wrong"}, item{name: "repo-1/Dockerfile", data: "D"}, item{name: "repo-1/a", data: "a"})
	c, err := OpenArchive(t.Context(), newStore(t), "x", input(data), Options{Sub: "repo-1", Dockerfile: "Dockerfile", Select: func(d *Dockerfile) (func(string) bool, error) {
		if string(d.Data) != "D" {
			return nil, fmt.Errorf("the Dockerfile is %q", d.Data)
		}
		return func(string) bool { return true }, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if diff := cmp.Diff(map[string]string{"Dockerfile": "D", "a": "a"}, listing(t, c.Tree(nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestArchiveIsADockerfile(t *testing.T) {
	c, err := OpenArchive(t.Context(), newStore(t), "x", input([]byte("FROM scratch\n")), Options{Dockerfile: "other"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Dockerfile("other")
	if err != nil || string(d.Data) != "FROM scratch\n" {
		t.Errorf("%v, %v", d, err)
	}
	name := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(name, []byte("FROM on-disk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Dockerfile(name); err != nil || string(d.Data) != "FROM on-disk\n" {
		t.Errorf("%v, %v", d, err)
	}
}

// bombOf is a few kilobytes that become more than a gibibyte.
func bombOf(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(w)
	err = tw.WriteHeader(&tar.Header{Name: "a", Mode: 0o644, Size: 1100 << 20})
	for zeros := make([]byte, 1<<20); err == nil; {
		if _, err = tw.Write(zeros); errors.Is(err, tar.ErrWriteTooLong) {
			break
		}
	}
	if err := errors.Join(tw.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// farBack lets an xz file say that it refers 4 GiB back.
func farBack(t *testing.T, b []byte) []byte {
	t.Helper()
	const header, dictionary = 12, 16 // of the first block, after the header of the file; the size is that of LZMA2's properties
	size := (int(b[header]) + 1) * 4
	if b[header+2] != 0x21 || b[header+3] != 1 {
		t.Fatalf("not LZMA2 alone: % x", b[header:header+size])
	}
	b[dictionary] = 40
	binary.LittleEndian.PutUint32(b[header+size-4:], crc32.ChecksumIEEE(b[header:header+size-4]))
	return b
}

func TestArchiveFails(t *testing.T) {
	good := archiveOf(t, item{name: "a", data: "a"})
	zipped := compressed(t, "gzip", good)
	bomb := bombOf(t)
	tests := []struct {
		name, want string
		data       []byte
	}{
		{"up", "a name that leads out of the context", archiveOf(t, item{name: "../a"})},
		{"up inside", "a name that leads out of the context", archiveOf(t, item{name: "a/../../b"})},
		{"hard link up", "outside of the context", archiveOf(t, item{name: "a", link: "../../etc/passwd", kind: tar.TypeLink})},
		{"hard link to nothing", "etc/passwd", archiveOf(t, item{name: "a", link: "/etc/passwd", kind: tar.TypeLink})},
		{"empty", "it is empty", nil},
		{"neither", "neither a tar archive", []byte("PK\x03\x04\x00\xff")},
		{"no end", "no end mark", good[:1024]},
		{"cut", "unexpected EOF", good[:600]},
		{"cut gzip", "unexpected EOF", zipped[:len(zipped)-20]},
		{"cut checksum", "unexpected EOF", zipped[:len(zipped)-4]},
		{"wrong checksum", "checksum", append(bytes.Clone(zipped[:len(zipped)-8]), make([]byte, 8)...)},
		{"bomb", "expands to more than", bomb},
		{"xz that refers far back", "a dictionary of more than 128 MiB", farBack(t, compressed(t, "xz", good))},
		{"web page", "a web page", []byte("\n<!DOCTYPE html><title>Sign in</title>")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := OpenArchive(t.Context(), newStore(t), "x", input(tt.data), Options{Dockerfile: "Dockerfile"})
			if err == nil {
				_ = c.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
}

func TestArchiveIsInert(t *testing.T) {
	data := archiveOf(
		t, item{name: "/etc/x", data: "1"}, item{name: "out", link: "/", kind: tar.TypeSymlink}, item{name: "out/etc/y", data: "2"},
		item{name: "null", kind: tar.TypeChar}, item{name: ".wh.x", data: "3"}, item{name: "h", link: "/etc/x", kind: tar.TypeLink})
	c, err := OpenArchive(t.Context(), newStore(t), "x", input(data), Options{Dockerfile: "Dockerfile"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	want := map[string]string{"etc/x": "1", "etc/y": "2", "h": "1", "out": "-> /", "null": "character device", ".wh.x": "3"}
	if diff := cmp.Diff(want, listing(t, c.Tree(nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestArchiveIsIgnored hides what an ignore file names, as in a directory.
func TestArchiveIsIgnored(t *testing.T) {
	data := archiveOf(t, item{name: ".dockerignore", data: "d\n!d/keep\n*.log\n"}, item{name: "d/a"}, item{name: "d/keep/b"}, item{name: "x.log"}, item{name: "y"})
	c, err := OpenArchive(t.Context(), newStore(t), "x", input(data), Options{Dockerfile: "Dockerfile"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	m, err := c.Ignore(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{".dockerignore": "d\n!d/keep\n*.log\n", "d/keep/b": "", "y": ""}
	if diff := cmp.Diff(want, listing(t, c.Tree(m))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLocate(t *testing.T) {
	sha := strings.Repeat("0123456789", 4)
	tests := []struct {
		in   string
		want Location
	}{
		{".", Location{Kind: Dir, Path: "."}},
		{"dir:///w", Location{Kind: Dir, Path: "/w"}},
		{"-", Location{Kind: Stdin}},
		{"tar://stdin", Location{Kind: Stdin}},
		{"tar:///w/c.tar.gz", Location{Kind: Tar, Path: "/w/c.tar.gz"}},
		{"s3://b", Location{Kind: S3, Bucket: "b", Key: "context.tar.gz"}},
		{"gs://b/d/c.tgz", Location{Kind: Google, Bucket: "b", Key: "d/c.tgz"}},
		{"git://h/r", Location{Kind: Git, URL: "git://h/r"}},
		{"git://h/r#refs/heads/x#" + sha, Location{Kind: Git, URL: "git://h/r#" + sha}},
		{"git@h:o/r.git#v1:sub", Location{Kind: Git, URL: "git@h:o/r.git#v1:sub"}},
		{"ssh://git@h/r", Location{Kind: Git, URL: "ssh://git@h/r"}},
		{"https://h/r.git?ref=x", Location{Kind: Git, URL: "https://h/r.git?ref=x"}},
		{"https://h/c.tar.gz?x=1", Location{Kind: Web, URL: "https://h/c.tar.gz?x=1"}},
		{"https://acc.blob.core.windows.net/c/b", Location{Kind: Azure, URL: "https://acc.blob.core.windows.net/c/b"}},
		{"http://127.0.0.1:1/acc/c/b", Location{Kind: Azure, URL: "http://127.0.0.1:1/acc/c/b"}},
		{"https://acc.blob.core.windows.net.evil/c/b", Location{Kind: Web, URL: "https://acc.blob.core.windows.net.evil/c/b"}},
	}
	for _, tt := range tests {
		got, err := Locate(tt.in, "http://127.0.0.1:1/acc")
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.in, err, diff)
		}
	}
	for in, want := range map[string]string{
		"https://h/r.git?brnch=dev": "brnch", "https://h/r.git?ref=a..b": "invalid git ref", "https://h/r.git?ref=--upload-pack=x": "invalid git ref", "https://h/r.git?tag=a&branch=b": "tag",
	} {
		if got, err := Locate(in, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"ftp://u:hunter2@h/x", "s3://", "git://u:hunter2@h/r#--upload-pack=x", "git://h/r#x#abc", "https://h/r#x", "ext::sh -c x", "git://h/r#a..b",
		"git@h:r#-x", "ssh://-oProxyCommand=x/r",
	} {
		if got, err := Locate(in, ""); err == nil && got.Kind != Dir || err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}
