// SPDX-License-Identifier: Apache-2.0

package main

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// epoch is the time of every generated path, so that a context is the same on every day.
func epoch() time.Time { return time.Unix(1_700_000_000, 0) }

// source makes content that is the same on every machine and every run, and fresh throughout: text drawn from a small pool
// would compress absurdly well with a long window.
type source struct {
	*rand.Rand
	words      []string
	cumulative []float64
}

// newSource seeds a source by name.
func newSource(name string) *source {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))                            // a hash never fails
	s := &source{Rand: rand.New(rand.NewPCG(h.Sum64(), 1))} //nolint:gosec // test content, not a secret
	total := 0.0
	for i := range 3000 {
		word := make([]byte, 2+s.IntN(9))
		for j := range word {
			word[j] = "abcdefghijklmnopqrstuvwxyz_(){}=;.\n"[s.IntN(35)]
		}
		// Zipf's law with exponent 1.4 makes a general compressor reach about 3:1, as source code does.
		total += 1 / (float64(i+3) * float64(1+i/200))
		s.words, s.cumulative = append(s.words, string(word)), append(s.cumulative, total)
	}
	return s
}

// text appends n bytes of pseudo-source to b.
func (s *source) text(b []byte, n int) []byte {
	end, total := len(b)+n, s.cumulative[len(s.cumulative)-1]
	for len(b) < end {
		b = append(b, s.words[sort.SearchFloat64s(s.cumulative, s.Float64()*total)]...)
		b = append(b, ' ')
	}
	return b[:end]
}

// noise appends n incompressible bytes to b.
func (s *source) noise(b []byte, n int) []byte {
	for end := len(b) + n; len(b) < end; {
		v := s.Uint64()
		for i := 0; i < 8 && len(b) < end; i++ {
			b = append(b, byte(v>>(8*i)))
		}
	}
	return b
}

// mixed appends n bytes, text and noise by turns of a page.
func (s *source) mixed(b []byte, n int) []byte {
	for end, isText := len(b)+n, true; len(b) < end; isText = !isText {
		page := min(4096, end-len(b))
		if isText {
			b = s.text(b, page)
		} else {
			b = s.noise(b, page)
		}
	}
	return b
}

// write puts a file into a context; missing directories are made.
func write(dir, name string, content []byte, mode os.FileMode) error {
	full := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(full, content, mode); err != nil {
		return err
	}
	if err := os.Chmod(full, mode); err != nil { // whatever the umask is
		return err
	}
	return os.Chtimes(full, epoch(), epoch())
}

// settle gives every directory the fixed time, after all files are made.
func settle(dir string) error {
	return filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chtimes(name, epoch(), epoch()) //nolint:gosec // a tree of our own, just made
	})
}
