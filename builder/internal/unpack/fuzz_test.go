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
		layers := [][]hostile.Entry{hostile.Spell(one, b.Outside), hostile.Spell(two, b.Outside), hostile.Spell(three, b.Outside)}
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
