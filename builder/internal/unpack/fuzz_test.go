// SPDX-License-Identifier: Apache-2.0

package unpack_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
	"github.com/kaniko-go/kaniko-go/e2e/hostile"
)

// FuzzLayers applies and unpacks three layers that the input spells, two bytes or three an entry. The canaries must live, and the
// root must be what the model says.
func FuzzLayers(f *testing.F) {
	f.Add([]byte("\x00\x00\x20\x01\x41\x03"), []byte("\x02\x11"), []byte("\x23\x05"))
	f.Add([]byte("\x43\x02\x00\x07"), []byte("\x43\x09\x10\x07"), []byte("\x00\x07\x60\x07"))
	f.Add([]byte("\x00\x02\x30\x02\x20\x03"), []byte("\x80\x02\x90\x03"), []byte("\xa0\x01\x00\x0f"))
	b := newBench(f)
	f.Fuzz(func(t *testing.T, one, two, three []byte) {
		if len(one)+len(two)+len(three) > 200 {
			t.Skip("long inputs say nothing new")
		}
		layers := [][]hostile.Entry{spell(one, b.Outside), spell(two, b.Outside), spell(three, b.Outside)}
		tr, err := b.ingest(t, layers)
		var got map[string]string
		if err == nil {
			got, err = b.unpack(t, tr, unpack.Plain)
		}
		want, wantErr := model(layers)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, the model's %v, of %+v", err, wantErr, layers)
		}
		if d := cmp.Diff(want, got); err == nil && d != "" {
			t.Fatalf("(-model +unpacked):\n%s\nof %+v", d, layers)
		}
		if err := b.Check(); err != nil {
			t.Fatalf("%v\nof %+v", err, layers)
		}
	})
}

// spell makes an entry of each pair of bytes: of the first, four bits say the type and four bits the directory, the second has
// the name and, for links, a third byte the target. All headers are alike, so that further names change no file.
func spell(b []byte, outside string) []hostile.Entry {
	dirs := []string{"", "a/", "b/", "a/b/", "x/", "x/a/", "../", "/", "a/../", "x/../", "./", "b/a/", "P/", "a/./", "a//", "x/x/"}
	names := []string{"a", "b", "x", "f", ".wh.a", ".wh.b", ".wh.x", ".wh..wh..opq", ".wh.f", "..", ".", "", "P", ".wh..", ".wh..wh.plnk", "secret"}
	targets := []string{"a", "b", "x", "f", "../a", "/b", "a/b", "..", "/", "x/f", "../P", "P/secret", "../secret", outside, "b/../a", "missing/../f"}
	var entries []hostile.Entry
	next := func() byte {
		if len(b) == 0 {
			return 0
		}
		c := b[0]
		b = b[1:]
		return c
	}
	for len(b) > 0 {
		c, n := next(), next()
		e := hostile.Entry{Name: dirs[c&15] + names[n&15], Mode: 0o755, UID: 1, GID: 2, MTime: 3, Type: "0055221160347S0z"[c>>4]}
		switch e.Type {
		case '1', '2':
			e.Link = targets[next()&15]
		case '0', '7':
			e.Data = "data of " + e.Name
		case '3', '4':
			e.Major = 1
		case 'S':
			e.Sparse, e.Size, e.Pieces = "gnu", 9000, []hostile.Piece{{Offset: 5000, Data: "piece"}}
		}
		entries = append(entries, e)
	}
	return entries
}
