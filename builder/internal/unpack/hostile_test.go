// SPDX-License-Identifier: Apache-2.0

package unpack_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/copy"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
	"github.com/kaniko-go/kaniko-go/e2e/hostile"
)

// every leaves out cases: of the grammar one in so many is tried. All of it is `make full-hostile`.
var every = flag.Int("hostile.every", 4, "try one of so many cases of the hostile grammar")

// bench is where cases are tried: canaries, among them a new root for each, and a store.
type bench struct {
	*hostile.Canaries
	store *store.Store
	roots int
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root, to give files other owners and to make devices")
	}
	c, err := hostile.NewCanaries(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	s, err := store.Open(tb.TempDir(), "")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &bench{Canaries: c, store: s}
}

// blob is a layer as a registry would serve it, with its true diffID.
type blob struct {
	v1.Layer
	diffID v1.Hash
}

func (b blob) DiffID() (v1.Hash, error) { return b.diffID, nil }

func newBlob(b []byte) (blob, error) {
	h, _, err := v1.SHA256(bytes.NewReader(b))
	return blob{static.NewLayer(b, types.OCIUncompressedLayer), h}, err
}

// ingest is the way of a base image: layers to the Tree.
func (b *bench) ingest(tb testing.TB, layers [][]hostile.Entry) (*tree.Tree, error) {
	tb.Helper()
	tr := tree.Empty()
	for _, entries := range layers {
		l, err := newBlob(hostile.Tar(entries))
		if err != nil {
			tb.Fatal(err)
		}
		in, err := layer.Ingest(tb.Context(), b.store, l, true)
		if err != nil {
			return nil, err
		}
		if tr, err = in.Index.Apply(tr); err != nil {
			return nil, err
		}
	}
	return tr, nil
}

// unpack makes a root of the Tree and says what is in it.
func (b *bench) unpack(tb testing.TB, tr *tree.Tree, kind unpack.Kind) (map[string]string, error) {
	tb.Helper()
	b.roots++
	dir := filepath.Join(b.Dir, fmt.Sprintf("root%d", b.roots))
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Fatal(err)
		}
	}()
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := unpack.Apply(tb.Context(), f, tree.Empty(), tr, kind); err != nil {
		return nil, err
	}
	got, err := hostile.List(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return got, nil
}

// addArchives is ADD of each layer as a local tar file.
func (b *bench) addArchives(layers [][]hostile.Entry) (*tree.Tree, error) {
	tr := tree.Empty()
	for i, entries := range layers {
		data := hostile.Tar(entries)
		ino := tree.NewFile(tree.Meta{Mode: 0o644}, int64(len(data)), tree.Bytes(data))
		name := fmt.Sprintf("%d.tar", i)
		var err error
		tr, err = copy.Apply(tr, copy.Request{
			Source:  tree.FromRoot(tree.NewDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: name, Inode: ino})),
			Items:   []copy.Item{{Path: name, Unpack: true}},
			Dest:    "/dst/",
			Archive: func(ino *tree.Inode) (*tree.Tree, error) { return layer.ReadArchive(b.store, ino) },
		})
		if err != nil {
			return nil, err
		}
	}
	return tr, nil
}

// copyFrom is COPY --from of all of an image, and of what the links in it lead to.
func copyFrom(from *tree.Tree) (*tree.Tree, error) {
	tr, err := copy.Apply(tree.Empty(), copy.Request{Source: from, Items: []copy.Item{{Path: "/"}}, Dest: "/dst/"})
	if err != nil {
		return nil, err
	}
	for _, p := range []string{"x", "x/f", "x/secret", "../../P/secret", "d", "P/*"} {
		next, err := copy.Apply(tr, copy.Request{Source: from, Items: []copy.Item{{Path: p}}, Dest: "/more/"})
		if err == nil {
			tr = next
		}
	}
	return tr, nil
}

// written is what becomes of a Tree that goes through a layer of our own.
func (b *bench) written(tb testing.TB, tr *tree.Tree) (*tree.Tree, error) {
	tb.Helper()
	_, changes, err := tree.Canon(tree.Empty(), tr, tree.Times{}, nil)
	if err != nil {
		return nil, err
	}
	l, err := layer.Write(tb.Context(), b.store, changes, layer.Compression{Algorithm: "gzip", Level: 1})
	if err != nil {
		return nil, err
	}
	in, err := layer.Ingest(tb.Context(), b.store, l, true)
	if err != nil {
		return nil, fmt.Errorf("a layer of our own: %w", err)
	}
	return in.Index.Apply(tree.Empty())
}

// named is what an error must say: the entry or path, or what of the tar file cannot be read.
var named = regexp.MustCompile(`entry ".*|unpack /|read tar:|copy |COPY|/`)

func TestHostileLayers(t *testing.T) {
	b := newBench(t)
	cases := hostile.Cases(b.Outside)
	tried, refused := 0, 0
	for i, c := range cases {
		if (i+i/4)%*every != 0 { // four orders follow one another
			continue
		}
		tried++
		if err := b.try(t, c); err != nil {
			refused++
			if msg := err.Error(); !named.MatchString(msg) {
				t.Errorf("%s: the error does not name what is wrong: %q", c.Name, msg)
			}
		}
		if err := b.Check(); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
	}
	t.Logf("%d of %d cases, %d refused", tried, len(cases), refused)
	if tried < 2000 {
		t.Errorf("only %d cases", tried)
	}
}

// try has a case go into every sink. The error is that of the first.
func (b *bench) try(t *testing.T, c hostile.Case) error {
	t.Helper()
	tr, err := b.ingest(t, c.Layers)
	var got map[string]string
	if err == nil {
		got, err = b.unpack(t, tr, unpack.Plain)
	}
	b.compare(t, c, got, err)
	if added, err := b.addArchives(c.Layers); err == nil {
		_, _ = b.unpack(t, added, unpack.Plain)
	}
	if tr == nil {
		return err
	}
	if copied, err := copyFrom(tr); err == nil {
		_, _ = b.unpack(t, copied, unpack.Lower)
	}
	if err == nil {
		again, writeErr := b.written(t, tr)
		if writeErr != nil {
			t.Errorf("%s: through a layer of our own: %v", c.Name, writeErr)
			return nil
		}
		if d := cmp.Diff(describe(t, tr), describe(t, again)); d != "" {
			t.Errorf("%s: a layer of our own holds something else (-want +got):\n%s", c.Name, d)
		}
	}
	return err
}

// odd are cases that the model does not understand: it reads entries, not bytes.
var odd = regexp.MustCompile(`pax |long name|long link|wrong checksum|size beyond|uid of 40|negative uid|sparse and huge|sparse tebi|old time|garbage|large attribute`)

// compare holds the result against the model's.
func (b *bench) compare(t *testing.T, c hostile.Case, got map[string]string, err error) {
	t.Helper()
	if odd.MatchString(c.Name) {
		return
	}
	want, wantErr := model(c.Layers)
	if (err != nil) != (wantErr != nil) {
		t.Errorf("%s: error %v, the model's %v", c.Name, err, wantErr)
		return
	}
	if d := cmp.Diff(want, got); err == nil && d != "" {
		t.Errorf("%s (-model +unpacked):\n%s", c.Name, d)
	}
}

func model(layers [][]hostile.Entry) (map[string]string, error) {
	m := hostile.NewModel()
	for _, l := range layers {
		if err := m.Apply(l); err != nil {
			return nil, err
		}
	}
	return m.List()
}

// describe is all of a Tree in words, with the names that are one inode.
func describe(tb testing.TB, tr *tree.Tree) map[string]string {
	tb.Helper()
	out := map[string]string{}
	first := map[*tree.Inode]string{}
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		major, minor := ino.Device()
		line := fmt.Sprintf("%v %o %d:%d %d %d %q %d:%d", ino.Type, ino.Mode, ino.UID, ino.GID, ino.MTime, ino.Size, ino.Link(), major, minor)
		for _, k := range slices.Sorted(maps.Keys(ino.Xattrs)) {
			line += fmt.Sprintf(" %s=%q", k, ino.Xattrs[k])
		}
		if ino.Type == tree.File && ino.Size < 1<<20 {
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
		} else if ino.Type != tree.Dir {
			first[ino] = p
		}
		out[p] = line
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}
