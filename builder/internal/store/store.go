// SPDX-License-Identifier: Apache-2.0

// Package store keeps what a build has on disk: an OCI image layout with the
// compressed layers, the uncompressed copies (spools) of layers that are read
// out of order, and the directories that roots are made in.
//
// Every build has a directory of its own below KANIKO_DIR and holds a lock on it while it
// lives. Blobs get their final name only when they are complete. Close removes the
// directory; what a killed build left is removed by the next one that opens
// a Store in the same place. A Store is safe for concurrent use.
package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// runPrefix begins the names of the directories of single builds.
const runPrefix = "build-"

// Store is the disk of one build.
type Store struct {
	// Indexes says that layer indexes are kept beside the layers.
	Indexes bool

	dir  string
	lock *os.File
	// made are the directories above that the Store made and so removes, innermost first.
	made []string
}

// Open makes a Store below dir, which is made if it is missing, after removing what dead builds left there.
// With dir "" it is made below preferred or, where that cannot be, in a new directory of the system's temporary directory.
func Open(dir, preferred string) (*Store, error) {
	s := &Store{}
	switch {
	case dir != "":
		if err := s.make(dir); err != nil {
			return nil, fmt.Errorf("work directory %s: %w", dir, err)
		}
	case s.make(preferred) == nil:
		dir = preferred
	default:
		tmp, err := os.MkdirTemp("", "kaniko-go-")
		if err != nil {
			return nil, fmt.Errorf("no work directory: %s cannot be made, nor a temporary one: %w", preferred, err)
		}
		s.made, dir = []string{tmp}, tmp
	}
	sweep(dir)
	run, err := os.MkdirTemp(dir, runPrefix)
	if err != nil {
		return nil, fmt.Errorf("work directory %s: %w", dir, err)
	}
	s.dir = run
	if s.lock, err = lock(run); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("lock %s: %w", run, err)
	}
	for _, sub := range []string{"blobs/sha256", "tmp", "roots"} {
		if err := os.MkdirAll(filepath.Join(run, sub), 0o700); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("work directory: %w", err)
		}
	}
	return s, nil
}

// make makes dir and finds out whether something can be made in it.
func (s *Store) make(dir string) error {
	var made []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, os.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s.made = made
	probe, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	return os.Remove(probe)
}

// lock takes the lock that says that a build is alive. The kernel drops it with the process.
func lock(run string) (*os.File, error) {
	f, err := os.OpenFile(run, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes the directories of builds that are no more. What cannot be removed stays: it
// is no reason not to build.
func sweep(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, runPrefix+"*"))
	if err != nil {
		return
	}
	for _, run := range old {
		f, err := lock(run)
		if err != nil {
			continue
		}
		_ = removeAll(run)
		_ = f.Close()
	}
}

// Dir is the build's directory.
func (s *Store) Dir() string { return s.dir }

// Close removes everything. It returns the first error, after having gone on.
func (s *Store) Close() error {
	err := removeAll(s.dir)
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	for _, d := range s.made {
		// Another build may have begun in there: then it stays.
		_ = os.Remove(d)
	}
	return err
}

// removeAll is os.RemoveAll for trees with directories that do not let us in, as a
// hostile or careless RUN may leave them.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	walkErr := filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:gosec // directories need the x bit
		}
		return nil
	})
	return errors.Join(os.RemoveAll(dir), walkErr)
}

// TempDir makes a new directory for a root. It has our own group and no set-group-id bit, which new directories
// inherit on a volume with a group of its own (fsGroup), and pass on to all that is made in them.
func (s *Store) TempDir(pattern string) (string, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, "roots"), pattern)
	if err != nil {
		return "", err
	}
	if err := os.Chown(dir, os.Geteuid(), os.Getegid()); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o700)
}

// Spool makes a file without a name: its space is freed when it is closed.
func (s *Store) Spool() (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// BlobPath is where the blob is or would be.
func (s *Store) BlobPath(h v1.Hash) string {
	return filepath.Join(s.dir, "blobs", h.Algorithm, h.Hex)
}

// Open opens a blob for reading; fs.ErrNotExist if it is not there.
func (s *Store) Open(h v1.Hash) (*os.File, error) {
	return os.Open(s.BlobPath(h))
}

// Blob is a blob being written.
type Blob struct {
	*os.File
	store *Store
	done  bool
}

// Create begins a blob. The caller must call Commit or Abort.
func (s *Store) Create() (*Blob, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "blob-")
	if err != nil {
		return nil, err
	}
	return &Blob{File: f, store: s}, nil
}

// Commit gives the blob its name. The digest is the caller's word: it has computed or
// checked it over exactly what was written.
func (b *Blob) Commit(h v1.Hash) error {
	if strings.ContainsAny(h.Algorithm+h.Hex, "/.") || h.Hex == "" {
		return fmt.Errorf("digest %q is not one", h.String())
	}
	if err := b.Close(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.store.BlobPath(h)), 0o700); err != nil {
		return err
	}
	if err := os.Rename(b.Name(), b.store.BlobPath(h)); err != nil {
		return err
	}
	b.done = true
	return nil
}

// Abort removes what was written. It does nothing after Commit.
func (b *Blob) Abort() {
	if b.done {
		return
	}
	_ = b.Close()
	_ = os.Remove(b.Name())
}
