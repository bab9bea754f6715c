// SPDX-License-Identifier: Apache-2.0

package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// TestPipes puts pipes where a Shared has files: whoever opened one to read would wait for a writer that never comes.
func TestPipes(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenShared(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}
	index := filepath.Join(dir, indexDir, h.Hex, h.Hex)
	if err := os.MkdirAll(filepath.Dir(index), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{s.BlobPath(h), filepath.Join(dir, "index.json"), index} {
		if err := unix.Mkfifo(p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for what, err := range map[string]error{
			"blob":        second(s.Open(h)),
			"index":       second(s.Index()),
			"layer index": third(s.LayerIndex(h)),
		} {
			if err == nil || !strings.Contains(err.Error(), "no regular file") {
				t.Errorf("%s: %v", what, err)
			}
		}
		// An index that cannot be read is begun anew.
		if err := s.Update(func(*v1.IndexManifest) error { return nil }); err != nil {
			t.Errorf("update: %v", err)
		}
		if err := removeUnused(s.BlobPath(h)); err != nil {
			t.Errorf("remove: %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a pipe")
	}
}

func second[A any](_ A, err error) error { return err }

func third[A, B any](_ A, _ B, err error) error { return err }
