// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// ErrReadOnly is wrapped by errors of a Shared that may only be read.
var ErrReadOnly = errors.New("it is read-only")

const (
	// lockPatience is how long another process is waited for, which holds the lock for milliseconds.
	lockPatience = 10 * time.Second
	// tempPrefix begins the names of files that are not complete.
	tempPrefix = ".tmp-"
	// maxSharedIndex bounds index.json.
	maxSharedIndex = 64 << 20
)

// Shared is an OCI image layout that outlives builds and that several use at the same time, on one machine or on
// several that share a volume. A blob has its final name only when it is complete and was verified; index.json changes under a lock, as a
// whole. A process that is killed leaves nothing but files with other names. It is safe for concurrent use.
type Shared struct {
	dir      string
	readOnly bool
}

// OpenShared opens the layout in dir, and makes it if it is missing. One that cannot be written to is read-only.
func OpenShared(dir string) (*Shared, error) {
	s := &Shared{dir: dir}
	if err := s.prepare(); err != nil {
		if _, statErr := os.Stat(filepath.Join(dir, "oci-layout")); statErr != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		s.readOnly = true
	}
	return s, nil
}

// ReadShared is OpenShared for a layout that must be there: nothing is made.
func ReadShared(dir string) (*Shared, error) {
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return nil, err
	}
	return OpenShared(dir)
}

func (s *Shared) prepare() error {
	if err := os.MkdirAll(filepath.Join(s.dir, "blobs", "sha256"), 0o775); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.dir, "oci-layout")); errors.Is(err, fs.ErrNotExist) {
		return s.replace("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	}
	return unix.Access(filepath.Join(s.dir, "blobs", "sha256"), unix.W_OK)
}

// Dir is where the layout is.
func (s *Shared) Dir() string { return s.dir }

// ReadOnly tells whether nothing can be written.
func (s *Shared) ReadOnly() bool { return s.readOnly }

// BlobPath is where the blob is or would be.
func (s *Shared) BlobPath(h v1.Hash) string { return filepath.Join(s.dir, "blobs", h.Algorithm, h.Hex) }

// Has tells whether the blob is there with that size. Its bytes are not read.
func (s *Shared) Has(d v1.Descriptor) bool {
	fi, err := os.Stat(s.BlobPath(d.Digest))
	return err == nil && fi.Mode().IsRegular() && fi.Size() == d.Size
}

// Open opens a blob for reading and notes that it was used; fs.ErrNotExist if it is not there. The bytes are as good as the disk: the caller verifies them.
func (s *Shared) Open(h v1.Hash) (*os.File, error) {
	if err := checkHash(h); err != nil {
		return nil, err
	}
	f, err := openRegular(s.BlobPath(h))
	if err == nil {
		s.using(f)
	}
	return f, err
}

// openRegular opens a file of a directory that others write to: what is no file, such as a pipe or a device, could keep its
// reader for ever.
func openRegular(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", name), err, f.Close())
	}
	return f, nil
}

// using notes that a file is used, which keeps it from being removed while it is open.
func (s *Shared) using(f *os.File) {
	inUse(f)
	if !s.readOnly {
		now := time.Now()
		_ = os.Chtimes(f.Name(), now, now)
	}
}

// ReadAll reads a small blob and verifies it.
func (s *Shared) ReadAll(d v1.Descriptor, limit int64) ([]byte, error) {
	f, err := s.Open(d.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	if int64(len(b)) != d.Size || hex.EncodeToString(sum[:]) != d.Digest.Hex {
		return nil, fmt.Errorf("%s is damaged", f.Name())
	}
	return b, nil
}

// Verify reads a blob and tells whether it has its digest.
func (s *Shared) Verify(d v1.Descriptor) error {
	f, err := s.Open(d.Digest)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if n != d.Size || hex.EncodeToString(h.Sum(nil)) != d.Digest.Hex {
		return fmt.Errorf("%s is damaged", f.Name())
	}
	return nil
}

// Put stores a blob, whose bytes must have the digest. It does nothing if the blob is there.
func (s *Shared) Put(d v1.Descriptor, r io.Reader) error {
	if s.readOnly {
		return fmt.Errorf("%s: %w", s.dir, ErrReadOnly)
	}
	if err := checkHash(d.Digest); err != nil {
		return err
	}
	if s.Has(d) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "blobs", d.Digest.Algorithm), tempPrefix)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), r)
	if err := errors.Join(err, f.Chmod(0o664), f.Sync(), f.Close()); err != nil {
		return err
	}
	if n != d.Size || hex.EncodeToString(h.Sum(nil)) != d.Digest.Hex {
		return fmt.Errorf("blob %s: %d bytes that do not have the digest", d.Digest, n)
	}
	return os.Rename(f.Name(), s.BlobPath(d.Digest))
}

// Remove removes a blob.
func (s *Shared) Remove(h v1.Hash) error {
	if s.readOnly {
		return fmt.Errorf("%s: %w", s.dir, ErrReadOnly)
	}
	return os.Remove(s.BlobPath(h))
}

// Index reads index.json; it is empty if there is none.
func (s *Shared) Index() (*v1.IndexManifest, error) {
	f, err := openRegular(filepath.Join(s.dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var idx v1.IndexManifest
	if err := json.NewDecoder(io.LimitReader(f, maxSharedIndex)).Decode(&idx); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return &idx, nil
}

// Update changes index.json, while nobody else does. An index that cannot be read is begun anew.
func (s *Shared) Update(change func(*v1.IndexManifest) error) error {
	if s.readOnly {
		return fmt.Errorf("%s: %w", s.dir, ErrReadOnly)
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	idx, err := s.Index()
	if err != nil {
		idx = &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	}
	if err := change(idx); err != nil {
		return err
	}
	raw, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	return s.replace("index.json", raw)
}

// lock takes the one lock of the layout.
func (s *Shared) lock() (unlock func(), err error) {
	name := filepath.Join(s.dir, ".lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o664)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
			return func() { _ = f.Close() }, nil // A file system without locks: of two updates at the same moment one is lost.
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
		}
	}
}

// replace writes a file as a whole.
func (s *Shared) replace(name string, data []byte) error {
	f, err := os.CreateTemp(s.dir, tempPrefix)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o664), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(s.dir, name))
}

// checkHash refuses what could lead to another directory.
func checkHash(h v1.Hash) error {
	if h.Algorithm != "sha256" || len(h.Hex) != 64 || strings.Trim(h.Hex, "0123456789abcdef") != "" {
		return fmt.Errorf("%q is no sha256 digest", h.String())
	}
	return nil
}
