// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// filled makes a directory with one file.
func filled(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(path, "f"), []byte("1234"), 0o600)
}

func claim(t *testing.T, dir string, w Want) *Claim {
	t.Helper()
	c, err := ClaimDir(dir, "0", w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Release)
	return c
}

func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rooms")
	if _, err := ClaimDir(dir, "0", Want{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that nobody makes: %v", err)
	}
	broken := errors.New("broken")
	if _, err := ClaimDir(dir, "0", Want{Make: func(path string) error { return errors.Join(filled(path), broken) }}); !errors.Is(err, broken) {
		t.Errorf("a directory that cannot be made: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "0")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there half made: %v", err)
	}
	first := claim(t, dir, Want{Make: func(path string) error {
		if _, err := ClaimDir(dir, "0", Want{Make: filled}); !errors.Is(err, ErrMaking) {
			t.Errorf("while it is being made: %v", err)
		}
		return filled(path)
	}})
	second := claim(t, dir, Want{Make: func(string) error { return errors.New("made a second time") }})
	if _, err := ClaimDir(dir, "0", Want{Exclusive: true}); !errors.Is(err, ErrBusy) {
		t.Errorf("alone, while two have it: %v", err)
	}
	if err := (&Room{Dir: dir, Name: "0"}).Remove(); !errors.Is(err, ErrBusy) {
		t.Errorf("removed while two have it: %v", err)
	}
	first.Label(Label{About: "a long name", Size: 1})
	first.Label(Label{About: "it", Size: 4})
	first.Release()
	second.Release()
	alone := claim(t, dir, Want{Exclusive: true})
	if _, err := ClaimDir(dir, "0", Want{}); !errors.Is(err, ErrBusy) {
		t.Errorf("together, while one has it alone: %v", err)
	}
	alone.Release()
	rooms := Rooms(dir)
	if len(rooms) != 1 || rooms[0].Measure() != 4 || rooms[0].About != "it" || time.Since(rooms[0].Used) > time.Minute {
		t.Errorf("listed: %+v", rooms)
	}
	if err := rooms[0].Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the last one was removed the directory is there: %v", err)
	}
}

// TestClaimRefills makes a directory anew that is empty, but not where somebody has it.
func TestClaimRefills(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rooms")
	empty := claim(t, dir, Want{Make: func(path string) error { return os.Mkdir(path, 0o755) }})
	again := claim(t, dir, Want{Refill: true, Make: func(string) error { return errors.New("made while somebody has it") }})
	empty.Release()
	again.Release()
	c := claim(t, dir, Want{Refill: true, Make: filled})
	if _, err := os.Stat(filepath.Join(c.Path, "f")); err != nil {
		t.Error(err)
	}
}

// TestClaimAfterACopy ends what a killed build in place has begun with a copy beside the directory.
func TestClaimAfterACopy(t *testing.T) {
	for _, old := range []bool{true, false} {
		dir := t.TempDir()
		if err := filled(filepath.Join(dir, "0.new")); err != nil {
			t.Fatal(err)
		}
		if old {
			if err := os.Mkdir(filepath.Join(dir, "0"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		c := claim(t, dir, Want{Exclusive: true, Make: func(string) error { return errors.New("made") }})
		if _, err := os.Stat(filepath.Join(c.Path, "f")); (err == nil) == old {
			t.Errorf("with the old one %t: %v", old, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "0.new")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the copy is still there: %v", err)
		}
	}
}

func TestItems(t *testing.T) {
	s, err := OpenShared(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put := func(text string) v1.Hash {
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h, _, err := v1.SHA256(mustOpen(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Adopt(h, name); err != nil {
			t.Fatal(err)
		}
		return h
	}
	blob, index, diffID := put("12345"), put("123"), v1.Hash{Algorithm: "sha256", Hex: "ab" + put("x").Hex[2:]}
	if err := s.AdoptLayerIndex(diffID, index, s.BlobPath(index)); err != nil {
		t.Fatal(err)
	}
	c, err := ClaimDir(filepath.Join(s.Dir(), MountsDir, "key"), "0", Want{Make: filled})
	if err != nil {
		t.Fatal(err)
	}
	c.Release()
	left := filepath.Join(s.Dir(), "blobs", "sha256", tempPrefix+"left")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * leftAfter)
	if err := os.Chtimes(left, long, long); err != nil {
		t.Fatal(err)
	}
	items, err := s.Items(true)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for _, i := range items {
		sizes[i.Kind] += i.Size
	}
	if diff := cmp.Diff(map[string]int64{KindBlob: 9, KindIndex: 3, KindMount: 4}, sizes); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed build left is there: %v", err)
	}
	f, err := s.Open(blob)
	if err != nil {
		t.Fatal(err)
	}
	busy := 0
	for _, i := range items {
		if errors.Is(i.Remove(), ErrBusy) {
			busy++
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if items, err = s.Items(false); err != nil || len(items) != 1 || busy != 1 || items[0].Name != blob.String() {
		t.Errorf("%d were busy, left: %+v, %v", busy, items, err)
	}
}

func mustOpen(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestOver(t *testing.T) {
	now := time.Unix(1000, 0)
	items := []Item{{Name: "new", Size: 10, Used: now}, {Name: "old", Size: 20, Used: now.Add(-time.Hour)}, {Name: "older", Size: 30, Used: now.Add(-2 * time.Hour)}}
	tests := []struct {
		name   string
		limits Limits
		want   []string
	}{
		{"no limit", Limits{}, nil},
		{"room for all", Limits{Size: 60}, nil},
		{"room for two", Limits{Size: 59}, []string{"older"}},
		{"room for none", Limits{Size: 1}, []string{"older", "old", "new"}},
		{"by age", Limits{TTL: 30 * time.Minute}, []string{"older", "old"}},
		{"by age, and then by size", Limits{Size: 15, TTL: 90 * time.Minute}, []string{"older", "old"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, i := range Over(items, tt.limits, now) {
				got = append(got, i.Name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
