// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/e2e/hostile"
)

var (
	randomCases = flag.Int("random.cases", 20_000, "so many random images are compared with the model")
	randomSeed  = flag.Uint64("random.seed", 0, "their seed; 0 is another one in every run")
)

// TestRandomLayers applies three random layers of entries that get into each other's way, in memory: the Tree must be what the
// model says, and where the model refuses something, there must be an error.
func TestRandomLayers(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-random.seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range *randomCases {
		var layers [][]hostile.Entry
		for range 3 {
			b := make([]byte, r.IntN(30))
			for i := range b {
				b[i] = byte(r.IntN(256))
			}
			layers = append(layers, hostile.Spell(b, "/P"))
		}
		got, err := inMemory(layers)
		want, wantErr := inModel(layers)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, the model's %v, of %+v", err, wantErr, layers)
		}
		if d := cmp.Diff(want, got); err == nil && d != "" {
			t.Fatalf("(-model +tree):\n%s\nof %+v", d, layers)
		}
	}
}

func inModel(layers [][]hostile.Entry) (map[string]string, error) {
	m := hostile.NewModel()
	for _, l := range layers {
		if err := m.Apply(l); err != nil {
			return nil, err
		}
	}
	return m.List()
}

func inMemory(layers [][]hostile.Entry) (map[string]string, error) {
	tr := tree.Empty()
	for _, entries := range layers {
		b := hostile.Tar(entries)
		idx, err := newReader(false, func(off, size int64) tree.Content { return tree.Bytes(b[off : off+size]) }).index(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if tr, err = idx.Apply(tr); err != nil {
			return nil, err
		}
	}
	names := map[*tree.Inode][]string{}
	err := tr.Walk(func(p string, ino *tree.Inode) error {
		names[ino] = append(names[ino], p)
		return nil
	})
	out := map[string]string{}
	for ino, paths := range names {
		line, lineErr := inWords(ino)
		err = errors.Join(err, lineErr)
		sort.Strings(paths)
		for _, p := range paths {
			out[p] = line
			if len(paths) > 1 {
				out[p] += " names=" + strings.Join(paths, ",")
			}
		}
	}
	return out, err
}

func inWords(ino *tree.Inode) (string, error) {
	var data []byte
	if ino.Type == tree.File {
		r, err := ino.Open()
		if err != nil {
			return "", err
		}
		if data, err = io.ReadAll(r); err != nil {
			return "", err
		}
	}
	types := map[tree.Type]byte{tree.File: '0', tree.Dir: '5', tree.Symlink: '2', tree.CharDevice: '3', tree.BlockDevice: '4', tree.Fifo: '6'}
	mode := int64(ino.Mode)
	if ino.Type == tree.Symlink {
		mode = 0o777
	}
	major, minor := ino.Device()
	return hostile.Line(types[ino.Type], mode, int64(ino.UID), int64(ino.GID), ino.MTime, ino.Size, string(data), ino.Link(), int64(major), int64(minor), ino.Xattrs), nil
}
