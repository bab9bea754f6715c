// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// indexDir holds layer indexes: a directory for each diffID with one file, whose name is the index's own digest.
const indexDir = "layer-indexes"

// LayerIndex opens the layer index of a layer; fs.ErrNotExist if there is none. The bytes are not verified.
func (s *Shared) LayerIndex(diffID v1.Hash) (*os.File, v1.Descriptor, error) {
	if err := checkHash(diffID); err != nil {
		return nil, v1.Descriptor{}, err
	}
	dir := filepath.Join(s.dir, indexDir, diffID.Hex)
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	for _, n := range names {
		h := v1.Hash{Algorithm: "sha256", Hex: n.Name()}
		if checkHash(h) != nil {
			continue
		}
		f, err := openRegular(filepath.Join(dir, n.Name()))
		if err != nil {
			return nil, v1.Descriptor{}, err
		}
		fi, err := f.Stat()
		if err != nil {
			return nil, v1.Descriptor{}, errors.Join(err, f.Close())
		}
		s.using(f)
		return f, v1.Descriptor{Digest: h, Size: fi.Size()}, nil
	}
	return nil, v1.Descriptor{}, fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
}

// HasLayerIndex tells whether LayerIndex has something to open.
func (s *Shared) HasLayerIndex(diffID v1.Hash) bool {
	f, _, err := s.LayerIndex(diffID)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// AdoptLayerIndex takes over a complete, verified file as the layer index of a layer, if there is none.
func (s *Shared) AdoptLayerIndex(diffID, digest v1.Hash, path string) error {
	if err := errors.Join(checkHash(diffID), checkHash(digest)); err != nil {
		return err
	}
	dir := filepath.Join(s.dir, indexDir, diffID.Hex)
	return s.adopt(path, dir, digest.Hex)
}

// RemoveLayerIndex removes the layer index of a layer.
func (s *Shared) RemoveLayerIndex(diffID v1.Hash) error {
	if err := checkHash(diffID); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(s.dir, indexDir, diffID.Hex))
}

// Adopt takes over a complete, verified file as a blob, by a link where that is possible.
func (s *Shared) Adopt(h v1.Hash, path string) error {
	if err := checkHash(h); err != nil {
		return err
	}
	return s.adopt(path, filepath.Join(s.dir, "blobs", h.Algorithm), h.Hex)
}

func (s *Shared) adopt(path, dir, name string) error {
	if s.readOnly {
		return fmt.Errorf("%s: %w", s.dir, ErrReadOnly)
	}
	to := filepath.Join(dir, name)
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o775); err != nil {
		return err
	}
	// A file with the permissions of a private store is nothing that others could read.
	if err := os.Chmod(path, 0o664); err != nil {
		return err
	}
	err := os.Link(path, to)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return copyTo(path, dir, to)
}

func copyTo(path, dir, to string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = io.Copy(f, src)
	if err := errors.Join(err, f.Chmod(0o664), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), to)
}
