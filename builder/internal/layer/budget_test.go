// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/e2e/hostile"
)

// TestBudgets has one layer over each limit on what is kept of it. What a whole layer may hold is tried with smaller limits.
func TestBudgets(t *testing.T) {
	file := func(name string) hostile.Entry { return hostile.Entry{Name: name, Type: '0', Mode: 0o644} }
	with := func(change func(*hostile.Entry)) []hostile.Entry {
		e := file("f")
		change(&e)
		return []hostile.Entry{e}
	}
	record := func(key string, n int) func(*hostile.Entry) {
		return func(e *hostile.Entry) { e.PAX = []hostile.Record{{Key: key, Value: strings.Repeat("v", n)}} }
	}
	var many, named, pieces []hostile.Entry
	for i := range 11 {
		many = append(many, file(fmt.Sprint(i)))
		named = append(named, hostile.Entry{Name: fmt.Sprint(i), Type: '2', Link: strings.Repeat("l", 10<<10)})
	}
	for i := range 3 {
		e := hostile.Entry{Name: fmt.Sprint(i), Type: '0', Sparse: "1.0", Size: 1 << 20}
		for k := range 4 {
			e.Pieces = append(e.Pieces, hostile.Piece{Offset: int64(k) << 12, Data: "x"})
		}
		pieces = append(pieces, e)
	}
	small := limits{entries: 10, names: 100 << 10, pieces: 10}
	tests := []struct {
		name    string
		entries []hostile.Entry
		want    string
	}{
		{"entries", many, "more than 10 entries"},
		{"depth", []hostile.Entry{file(strings.Repeat("d/", 256) + "f")}, "more than 256 directories deep"},
		{"an extended header", with(record("comment", 1<<20)), "an extended header of more than 1 MiB"},
		{"extended attributes", with(record("SCHILY.xattr.user.a", 64<<10+1)), "more than 65536 bytes of extended attributes"},
		{"names and links of all entries", named, "of names, link targets and extended attributes"},
		{"pieces of sparse files", pieces, "more than 10 parts"},
		{"a sparse file", with(func(e *hostile.Entry) { e.Sparse, e.Size = "1.0", 64<<30+1 }), "a sparse file of 68719476737 bytes, more than the limit of 68719476736"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rd := newReader(false, func(int64, int64) tree.Content { return failing{} })
			rd.left = small
			_, err := rd.index(bytes.NewReader(hostile.Tar(tt.entries)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestDepthThroughLinks: links make a path deeper than its name.
func TestDepthThroughLinks(t *testing.T) {
	deep := strings.TrimSuffix(strings.Repeat("d/", 200), "/")
	_, err := applyAll(t, []tarball{{{"x", tar.TypeSymlink, deep}, {"x/" + deep + "/f", tar.TypeReg, ""}}})
	if err == nil || !strings.Contains(err.Error(), "more than 256 directories deep, links followed") {
		t.Error(err)
	}
}

// zeros is a tar file with one file of n zeros.
func zeros(n int64) io.Reader {
	head := hostile.Tar([]hostile.Entry{{Name: "zeros", Type: '0', Mode: 0o644, Claim: n}})
	return io.MultiReader(bytes.NewReader(head[:512]), io.LimitReader(zeroReader{}, n+1024))
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestT19 has bombs: they end at their limit, soon, and the disk holds no more than that.
func TestT19(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks gigabytes of zeros")
	}
	var gz, zst bytes.Buffer
	const n = ratioFloor + 64<<20
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.MultiWriter(g, z), zeros(n))
	if err := errors.Join(err, g.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	window := append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8}, make([]byte, 64)...) // 2 GiB: 2^(10+21)
	tests := []struct {
		name string
		blob []byte
		want string
	}{
		{"zstd", zst.Bytes(), "become more than 1000 times as many"},
		{"gzip", gz.Bytes(), "become more than 1000 times as many"},
		{"zstd with a window of 2 GiB", window, "window"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			l := remote{static.NewLayer(tt.blob, types.OCILayer), digestOf(t, nil), tt.blob}
			start := time.Now()
			_, err := Ingest(t.Context(), s, l, true)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			t.Logf("%v for %d bytes", time.Since(start), len(tt.blob))
			if used := diskUse(t, s); used > 1<<20 {
				t.Errorf("%d bytes are left", used)
			}
		})
	}
	t.Run("ADD", func(t *testing.T) {
		s := newStore(t)
		ino := tree.NewFile(tree.Meta{}, int64(zst.Len()), tree.Bytes(zst.Bytes()))
		if _, err := ReadArchive(s, ino); err == nil || !strings.Contains(err.Error(), "become more than 1000 times as many") {
			t.Error(err)
		}
	})
}

// diskUse is what the files below the store's directory take.
func diskUse(t *testing.T, s *store.Store) int64 {
	t.Helper()
	var used int64
	err := filepath.WalkDir(s.Dir(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			used += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// TestSparseForms reads the four ways in which holes are written down, and a file that is larger than any disk should hold.
func TestSparseForms(t *testing.T) {
	var pieces []hostile.Piece
	for i := range 60 {
		pieces = append(pieces, hostile.Piece{Offset: int64(i)*100_000 + 7, Data: strings.Repeat(string(rune('a'+i%26)), 1+i*7)})
	}
	for _, form := range []string{"gnu", "0.0", "0.1", "1.0"} {
		for name, entry := range map[string]hostile.Entry{
			"pieces":     {Size: 6_100_000, Pieces: pieces},
			"no piece":   {Size: 300_000},
			"to the end": {Size: 100_005, Pieces: []hostile.Piece{{Offset: 100_000, Data: "hello"}}},
			"long name":  {Size: 9000, Pieces: pieces[:1], Name: strings.Repeat("n", 150)},
		} {
			t.Run(form+" "+name, func(t *testing.T) {
				e := entry
				e.Sparse, e.Mode, e.Type = form, 0o644, '0'
				if e.Name == "" {
					e.Name = "sparse"
				}
				if form == "gnu" {
					e.Type = 'S'
				}
				before, after := hostile.Entry{Name: "before", Type: '0', Data: strings.Repeat("b", 700)}, hostile.Entry{Name: "etc/passwd", Type: '0', Data: "root"}
				b := hostile.Tar([]hostile.Entry{before, e, after})
				in, err := Ingest(t.Context(), newStore(t), remote{static.NewLayer(gz(t, b), types.OCILayer), digestOf(t, b), gz(t, b)}, false)
				if err != nil {
					t.Fatal(err)
				}
				tr, err := in.Index.Apply(tree.Empty())
				if err != nil {
					t.Fatal(err)
				}
				for name, want := range map[string]string{"before": before.Data, e.Name: e.Content(), "etc/passwd": "root"} {
					if got, err := tr.ReadFile(name, 10<<20); err != nil || string(got) != want {
						t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
					}
				}
			})
		}
	}
	// The map says what the data does not hold.
	e := hostile.Entry{Name: "f", Type: '0', Sparse: "1.0", Size: 9000, Pieces: []hostile.Piece{{Offset: 5, Data: "hello"}}}
	b := bytes.Replace(hostile.Tar([]hostile.Entry{e}), []byte("\n5\n5\n9000\n"), []byte("\n5\n6\n9000\n"), 1)
	if _, err := newReader(false, (&spoolFile{}).place).index(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Error(err)
	}
}
