// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

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

// tarball is a tar file as a literal: name, type, and content, target or device.
type tarball []struct {
	name string
	typ  byte
	data string
}

func (tb tarball) bytes(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range tb {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Mode: 0o644}
		switch e.typ {
		case tar.TypeReg:
			h.Size = int64(len(e.data))
		case tar.TypeDir:
			h.Mode = 0o755
		default:
			h.Linkname = e.data
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.typ == tar.TypeReg {
			if _, err := io.WriteString(w, e.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gz(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&buf)
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

// remote is a layer with the descriptor of one blob and the bytes of another.
type remote struct {
	v1.Layer
	diffID v1.Hash
	bytes  []byte
}

func (r remote) DiffID() (v1.Hash, error) { return r.diffID, nil }
func (r remote) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(r.bytes)), nil
}

func digestOf(t *testing.T, b []byte) v1.Hash {
	t.Helper()
	h, _, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestIngestVerifies(t *testing.T) {
	plain := tarball{{"a", tar.TypeReg, "hello"}}.bytes(t)
	blob := gz(t, plain)
	other := tarball{{"a", tar.TypeReg, "hullo"}}.bytes(t)
	tests := []struct {
		name   string
		desc   []byte // what the descriptor is of
		bytes  []byte // what is served
		diffID []byte
		bad    bool
	}{
		{"good", blob, blob, plain, false},
		{"uncompressed", plain, plain, plain, false},
		{"several members", gz(t, plain[:100], plain[100:]), gz(t, plain[:100], plain[100:]), plain, false},
		{"junk after the tar is part of the diffID", gz(t, append(bytes.Clone(plain), "junk"...)), gz(t, append(bytes.Clone(plain), "junk"...)), append(bytes.Clone(plain), "junk"...), false},
		{"forged of the same length", blob, gz(t, other)[:len(gz(t, other))], plain, true},
		{"truncated", blob, blob[:len(blob)-3], plain, true},
		{"more bytes", blob, append(bytes.Clone(blob), 0), plain, true},
		{"another diffID", blob, blob, other, true},
		{"no tar", gz(t, []byte(strings.Repeat("x", 1024))), gz(t, []byte(strings.Repeat("x", 1024))), []byte(strings.Repeat("x", 1024)), true},
	}
	for _, tt := range tests {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", tt.name, keep), func(t *testing.T) {
				s := newStore(t)
				l := remote{static.NewLayer(tt.desc, types.OCILayer), digestOf(t, tt.diffID), tt.bytes}
				in, err := Ingest(t.Context(), s, l, keep)
				if tt.bad {
					if err == nil {
						t.Fatal("no error")
					}
					if _, err := os.Stat(s.BlobPath(digestOf(t, tt.desc))); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("the blob is in the store: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				tr, err := in.Index.Apply(tree.Empty())
				if err != nil {
					t.Fatal(err)
				}
				if b, err := tr.ReadFile("a", 10); err != nil || string(b) != "hello" {
					t.Errorf("a = %q, %v", b, err)
				}
			})
		}
	}
}

func TestApply(t *testing.T) {
	const (
		reg, dir, sym, hard = tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink
	)
	tests := []struct {
		name   string
		layers []tarball
		want   string
		fails  bool
	}{
		{name: "implied parents", layers: []tarball{{{"a/b/c", reg, "x"}}}, want: "a/ a/b/ a/b/c=x"},
		{name: "clamped names", layers: []tarball{{{"../../x", reg, "1"}, {"/y", reg, "2"}, {"./d/../z", reg, "3"}}}, want: "x=1 y=2 z=3"},
		{name: "parent is a link", layers: []tarball{{{"usr/lib/", dir, ""}, {"lib", sym, "usr/lib"}}, {{"lib/x", reg, "1"}}}, want: "lib>usr/lib usr/ usr/lib/ usr/lib/x=1"},
		{name: "parent is a link out", layers: []tarball{{{"x", sym, "../../.."}, {"x/f", reg, "1"}}}, want: "f=1 x>../../.."},
		{name: "directory becomes link", layers: []tarball{{{"a/b", reg, "1"}, {"c/", dir, ""}}, {{"a", sym, "c"}, {"a/n", reg, "2"}}}, want: "a>c c/ c/n=2"},
		{name: "link replaced by another in itself", layers: []tarball{{{"a/", dir, ""}, {"p", sym, ".."}, {"p/p", sym, "a"}, {"p/f", reg, "1"}}}, want: "a/ a/f=1 p>a"},
		{name: "whiteout", layers: []tarball{{{"a/b", reg, "1"}, {"a/c", reg, "2"}}, {{"a/.wh.b", reg, ""}}}, want: "a/ a/c=2"},
		{name: "whiteout and file, both orders", layers: []tarball{{{"a", reg, "1"}, {"b", reg, "1"}}, {{".wh.a", reg, ""}, {"a", reg, "2"}, {"b", reg, "2"}, {".wh.b", reg, ""}}}, want: "a=2 b=2"},
		{name: "whiteout of nothing", layers: []tarball{{{".wh.a", reg, ""}, {"x/.wh.b", reg, ""}}}, want: ""},
		{name: "opaque before and after", layers: []tarball{{{"a/old", reg, "1"}, {"b/old", reg, "1"}, {"b/s/old", reg, "1"}}, {{"a/.wh..wh..opq", reg, ""}, {"a/new", reg, "2"}, {"b/s/new", reg, "2"}, {"b/.wh..wh..opq", reg, ""}}}, want: "a/ a/new=2 b/ b/s/ b/s/new=2"},
		{name: "other AUFS markers", layers: []tarball{{{".wh..wh.plnk/1", reg, ""}, {".wh..wh.aufs", reg, ""}, {"a/.wh..wh.orph/x", reg, ""}, {"a/b", reg, "1"}}}, want: "a/ a/b=1"},
		{name: "below a whiteout", layers: []tarball{{{"a/.wh.b/c", reg, "1"}}}, fails: true},
		{name: "whiteout of the parent", layers: []tarball{{{".wh...", reg, ""}}}, fails: true},
		{name: "hard link", layers: []tarball{{{"a", reg, "1"}, {"b", hard, "/a"}}}, want: "a=1 b=1*"},
		{name: "hard link to a lower layer", layers: []tarball{{{"a", reg, "1"}}, {{"b", hard, "a"}}}, want: "a=1 b=1*"},
		{name: "hard link to nothing", layers: []tarball{{{"b", hard, "a"}}}, fails: true},
		{name: "hard link to itself", layers: []tarball{{{"a", reg, "1"}, {"a", hard, "a"}}}, fails: true},
		{name: "hard link to a directory", layers: []tarball{{{"a/", dir, ""}, {"b", hard, "a"}}}, fails: true},
		{name: "hard link, then one name rewritten", layers: []tarball{{{"a", reg, "1"}, {"b", hard, "a"}}, {{"a", reg, "2"}}}, want: "a=2 b=1"},
		{name: "link loop as parent", layers: []tarball{{{"a", sym, "a"}, {"a/x", reg, "1"}}}, fails: true},
		{name: "file as parent", layers: []tarball{{{"a", reg, "1"}, {"a/x", reg, "1"}}}, fails: true},
		{name: "root as link", layers: []tarball{{{"./", sym, "x"}}}, fails: true},
		{name: "last of the same name", layers: []tarball{{{"a", reg, "1"}, {"a/", dir, ""}, {"a", reg, "3"}}}, want: "a=3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := applyAll(t, tt.layers)
			if (err != nil) != tt.fails {
				t.Fatalf("error %v, want one: %v", err, tt.fails)
			}
			if d := cmp.Diff(tt.want, got); err == nil && d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func applyAll(t *testing.T, layers []tarball) (string, error) {
	t.Helper()
	s, tr := newStore(t), tree.Empty()
	for _, tb := range layers {
		b := tb.bytes(t)
		in, err := Ingest(t.Context(), s, remote{static.NewLayer(b, types.OCIUncompressedLayer), digestOf(t, b), b}, true)
		if err != nil {
			return "", err
		}
		if tr, err = in.Index.Apply(tr); err != nil {
			return "", err
		}
	}
	return list(t, tr), nil
}

// list describes a Tree: a/ b=content c>target, with * after a second name of an inode.
func list(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var out []string
	seen := map[*tree.Inode]bool{}
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		switch ino.Type {
		case tree.Dir:
			p += "/"
		case tree.Symlink:
			p += ">" + ino.Link()
		case tree.File:
			b, err := tr.ReadFile(p, 1<<20)
			if err != nil {
				return err
			}
			p += "=" + string(b)
		}
		if seen[ino] {
			p += "*"
		}
		seen[ino] = true
		out = append(out, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestSparseFile(t *testing.T) {
	// GNU tar's old format: one map entry in the header; 5 bytes at 1 MiB of a file of 3 MiB.
	hdr := make([]byte, 512)
	copy(hdr, "sparse")
	for off, field := range map[int]string{100: "0000644", 108: "0000000", 116: "0000000", 124: "00000000005", 136: "00000000000", 257: "ustar  ", 386: "00004000000", 398: "00000000005", 483: "00014000000"} {
		copy(hdr[off:], field)
	}
	hdr[156] = tar.TypeGNUSparse
	copy(hdr[148:], "        ")
	sum := 0
	for _, b := range hdr {
		sum += int(b)
	}
	copy(hdr[148:], fmt.Sprintf("%06o\x00 ", sum))
	b := append(hdr, make([]byte, 512+1024)...)
	copy(b[512:], "HELLO")
	s := newStore(t)
	in, err := Ingest(t.Context(), s, remote{static.NewLayer(b, types.OCIUncompressedLayer), digestOf(t, b), b}, false)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := in.Index.Apply(tree.Empty())
	if err != nil {
		t.Fatal(err)
	}
	got, err := tr.ReadFile("sparse", 10<<20)
	if err != nil || len(got) != 3<<20 || string(got[1<<20:1<<20+5]) != "HELLO" || bytes.Count(got, []byte{0}) != 3<<20-5 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func sample(t *testing.T) []tree.Change {
	t.Helper()
	big := bytes.Repeat([]byte("all work and no play "), 200_000)
	shared := tree.NewFile(tree.Meta{Mode: 0o4755, MTime: 1e9}, 2, tree.Bytes("hi"))
	shared.Shared = true
	return []tree.Change{
		{Path: "bin", Inode: tree.NewDir(tree.Meta{Mode: 0o755, MTime: 7})},
		{Path: "bin/big", Inode: tree.NewFile(tree.Meta{Mode: 0o644, UID: 3_000_000, MTime: -5}, int64(len(big)), tree.Bytes(big))},
		{Path: "bin/one", Inode: shared},
		{Path: "bin/two", Inode: shared},
		{Path: "dev", Inode: tree.NewDevice(tree.CharDevice, tree.Meta{Mode: 0o600}, 1, 3)},
		{Path: "empty", Inode: tree.NewFile(tree.Meta{Mode: 0o600, Xattrs: map[string]string{"security.capability": "\x01\x00\x02"}}, 0, nil)},
		{Path: "gone"},
		{Path: "l", Inode: tree.NewSymlink(tree.Meta{Mode: 0o777}, strings.Repeat("x/", 200))},
		{Path: "p", Inode: tree.NewFifo(tree.Meta{Mode: 0o600})},
	}
}

func TestWriteAndReadBack(t *testing.T) {
	for _, c := range []Compression{{}, {Algorithm: "gzip", Level: 9, Docker: true}, {Algorithm: "zstd"}, {Algorithm: "zstd", Level: 19}} {
		t.Run(fmt.Sprintf("%s%d", c.Algorithm, c.Level), func(t *testing.T) {
			s := newStore(t)
			l, err := Write(t.Context(), s, sample(t), c)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Write(t.Context(), s, sample(t), c)
			if err != nil || again.digest != l.digest {
				t.Errorf("a second time: %v, %v; first %v", again, err, l.digest)
			}
			in, err := Ingest(t.Context(), newStore(t), l, true)
			if err != nil {
				t.Fatal(err)
			}
			before := change(t, "gone")
			tr, err := in.Index.Apply(before)
			if err != nil {
				t.Fatal(err)
			}
			_, changes, err := tree.Canon(before, tr, tree.Times{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			second, err := Write(t.Context(), s, changes, c)
			if err != nil || second.diffID != l.diffID {
				t.Errorf("tree of the layer made again: %v, %v; want diffID %v", second, err, l.diffID)
			}
		})
	}
}

func change(t *testing.T, name string) *tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	if err := e.Put(name, tree.NewDir(tree.Meta{Mode: 0o755})); err != nil {
		t.Fatal(err)
	}
	return e.Commit()
}

func TestEmptyLayer(t *testing.T) {
	l, err := Write(t.Context(), newStore(t), nil, Compression{})
	if err != nil {
		t.Fatal(err)
	}
	// 1024 zero bytes: what every builder's empty layer is.
	if want := "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"; l.diffID.Hex != want {
		t.Errorf("diffID %s, want %s", l.diffID.Hex, want)
	}
}

type failing struct{ n int }

func (f failing) Open() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(strings.Repeat("x", f.n))), nil
}

func TestWriteErrors(t *testing.T) {
	file := func(n int) *tree.Inode { return tree.NewFile(tree.Meta{}, 10, failing{n}) }
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	tests := []struct {
		name   string
		ctx    context.Context
		change tree.Change
		want   string
	}{
		{"shrinking file", t.Context(), tree.Change{Path: "a", Inode: file(4)}, "/a: the file became shorter"},
		{"whiteout name", t.Context(), tree.Change{Path: "d/.wh.x", Inode: file(10)}, ".wh."},
		{"cancelled", cancelled, tree.Change{Path: "a", Inode: file(10)}, "enough"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			_, err := Write(tt.ctx, s, []tree.Change{tt.change}, Compression{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			left, err := os.ReadDir(s.Dir() + "/tmp")
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func FuzzIndex(f *testing.F) {
	for _, tb := range []tarball{{{"a/b", tar.TypeReg, "x"}}, {{".wh..wh..opq", tar.TypeReg, ""}}} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, e := range tb {
			_ = w.WriteHeader(&tar.Header{Name: e.name, Typeflag: e.typ, Size: int64(len(e.data))})
			_, _ = io.WriteString(w, e.data)
		}
		_ = w.Close()
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var end int64 // of what lies furthest back
		idx, err := newReader(false, func(off, size int64) tree.Content {
			if off < 0 || size <= 0 || off > math.MaxInt64-size {
				t.Fatalf("content at %d, %d bytes", off, size)
			}
			end = max(end, off+size)
			return failing{int(size)}
		}).index(bytes.NewReader(b))
		if err != nil {
			return // also where a header announced more than there is
		}
		if end > int64(len(b)) {
			t.Fatalf("content up to %d of a tar file of %d", end, len(b))
		}
		for _, e := range idx.entries {
			if e.inode == nil {
				continue
			}
			if c, ok := e.inode.Content().(*sparse); ok {
				at := int64(0)
				for _, p := range c.pieces {
					if p.offset < at || p.size <= 0 || p.offset+p.size > e.inode.Size {
						t.Fatalf("%+v of a file of %d", p, e.inode.Size)
					}
					at = p.offset + p.size
				}
			}
		}
		tr, err := idx.Apply(tree.Empty())
		if err != nil {
			return
		}
		_ = tr.Walk(func(p string, _ *tree.Inode) error {
			if strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../") {
				t.Fatalf("path %q", p)
			}
			return nil
		})
	})
}
