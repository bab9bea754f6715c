// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// describe lists a Tree with all metadata and, where want says so, contents.
func describe(t *testing.T, tr *tree.Tree, contents func(path string) bool) []string {
	t.Helper()
	var out []string
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		line := fmt.Sprintf("%s %v %o %d:%d %d %d %q %v", p, ino.Type, ino.Mode, ino.UID, ino.GID, ino.MTime, ino.Size, ino.Link(), ino.Xattrs)
		if ino.Type == tree.File && contents(p) {
			r, err := ino.Open()
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d bytes %q", len(b), b[:min(len(b), 40)])
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func all(string) bool { return true }

// twoLayers is a Tree with what an index has to carry.
func twoLayers() *tree.Tree {
	m := tree.Meta{Mode: 0o644, UID: 7, GID: 8, MTime: 1234, Xattrs: map[string]string{"user.x": "y\x00z"}}
	e := tree.Empty().Edit()
	put := func(p string, ino *tree.Inode) {
		if err := e.Put(p, ino); err != nil {
			panic(err)
		}
	}
	put("etc", tree.NewDir(tree.Meta{Mode: 0o755}))
	put("etc/passwd", tree.NewFile(tree.Meta{Mode: 0o644}, 31, tree.Bytes("root:x:0:0:root:/root:/bin/sh\n\n")))
	put("big", tree.NewFile(m, 300_000, tree.Bytes(bytes.Repeat([]byte("0123456789"), 30_000))))
	put("empty", tree.NewFile(m, 0, nil))
	put("odd", tree.NewFile(m, 513, tree.Bytes(bytes.Repeat([]byte("a"), 513))))
	put("link", tree.NewSymlink(m, strings.Repeat("x/", 150)))
	put(strings.Repeat("n", 200), tree.NewFifo(m))
	put("dev", tree.NewDevice(tree.CharDevice, m, 5, 6))
	shared := tree.NewFile(m, 5, tree.Bytes("hello"))
	shared.Shared = true
	put("one", shared)
	put("two", shared)
	return e.Commit()
}

func indexing(t *testing.T) *store.Store {
	t.Helper()
	s := newStore(t)
	s.Indexes = true
	return s
}

// counted is a layer that knows how often it was read.
type counted struct {
	v1.Layer
	opened int
}

func (c *counted) Compressed() (io.ReadCloser, error) {
	c.opened++
	return c.Layer.Compressed()
}

func TestDeferred(t *testing.T) {
	s := indexing(t)
	_, changes, err := tree.Canon(tree.Empty(), twoLayers(), tree.Times{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	written, err := Write(context.Background(), s, changes, Compression{Algorithm: "zstd"})
	if err != nil {
		t.Fatal(err)
	}
	other := indexing(t)
	whole, err := Ingest(context.Background(), other, written, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(written.IndexBlob(), whole.IndexBlob()); diff != "" {
		t.Fatalf("writing and reading a layer give two indexes (-written +read):\n%s", diff)
	}
	want, err := whole.Index.Apply(tree.Empty())
	if err != nil {
		t.Fatal(err)
	}

	third := indexing(t)
	f, err := s.Open(written.IndexBlob().Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	source := &counted{Layer: written}
	d, err := Defer(context.Background(), third, source, f, written.IndexBlob().Digest)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Index.Apply(tree.Empty())
	if err != nil {
		t.Fatal(err)
	}
	passwd := func(p string) bool { return p == "etc/passwd" || p == "empty" }
	if diff := cmp.Diff(describe(t, want, passwd), describe(t, got, passwd)); diff != "" {
		t.Errorf("Tree of the index (-layer +index):\n%s", diff)
	}
	if source.opened != 0 || d.Fetched() {
		t.Errorf("the layer was opened %d times before anybody read a content", source.opened)
	}
	if diff := cmp.Diff(describe(t, want, all), describe(t, got, all)); diff != "" {
		t.Errorf("Tree of the index with contents (-layer +index):\n%s", diff)
	}
	if source.opened != 1 || !d.Fetched() {
		t.Errorf("the layer was opened %d times, want once", source.opened)
	}
}

func TestDeferredDisagrees(t *testing.T) {
	s := indexing(t)
	_, changes, err := tree.Canon(tree.Empty(), twoLayers(), tree.Times{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Write(context.Background(), s, changes, Compression{Algorithm: "gzip"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Write(context.Background(), s, changes[:3], Compression{Algorithm: "gzip"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(a.IndexBlob().Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	d, err := Defer(context.Background(), indexing(t), b, f, a.IndexBlob().Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Fetch(context.Background()); err == nil || !strings.Contains(err.Error(), "not what its index says") {
		t.Errorf("Fetch of a layer with another's index: %v", err)
	}
}

// The decoder meets bytes of a cache that others may write to.
func FuzzDecodeIndex(f *testing.F) {
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x00, 0x09, 0x00, 0x00, 0xaa})
	s, err := store.Open(f.TempDir(), "")
	if err != nil {
		f.Fatal(err)
	}
	s.Indexes = true
	_, changes, err := tree.Canon(tree.Empty(), twoLayers(), tree.Times{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	l, err := Write(context.Background(), s, changes, Compression{Algorithm: "gzip"})
	if err != nil {
		f.Fatal(err)
	}
	r, err := s.Open(l.IndexBlob().Digest)
	if err != nil {
		f.Fatal(err)
	}
	seed, err := io.ReadAll(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(_ *testing.T, data []byte) {
		d, err := Defer(context.Background(), s, static.NewLayer(nil, types.OCILayer), bytes.NewReader(data), v1.Hash{})
		if err == nil {
			_, _ = d.Index.Apply(tree.Empty())
		}
	})
}
