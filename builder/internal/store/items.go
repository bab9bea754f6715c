// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// What a Shared has besides its blobs: directories that builds claim, of cache mounts and of unpacked base images.
const (
	MountsDir   = "cache-mounts"
	UnpackedDir = "unpacked"
)

// The kinds of an Item.
const (
	KindBlob     = "blob"
	KindIndex    = "layer index"
	KindMount    = "cache mount"
	KindUnpacked = "unpacked image"
)

// leftAfter is the age at which a file that is not complete is nobody's any more.
const leftAfter = time.Hour

// Item is something in a Shared that can be removed by itself.
type Item struct {
	Kind string
	// Name is a digest for a blob, the diffID for a layer index, else a path below the directory.
	Name string
	// About is what people call it, "" if nobody knows.
	About string
	Size  int64
	// Used is when it was last used, or made.
	Used time.Time

	remove func() error
}

// Remove removes it, unless a build has it open: ErrBusy.
func (i Item) Remove() error { return i.remove() }

// Items lists everything that can be removed. With measure the directories' files are counted anew, which reads them all.
func (s *Shared) Items(measure bool) ([]Item, error) {
	blobs, err := s.files(filepath.Join("blobs", "sha256"))
	if err != nil {
		return nil, err
	}
	for n := range blobs {
		blobs[n].Kind, blobs[n].Name = KindBlob, "sha256:"+filepath.Base(blobs[n].Name)
	}
	indexes, err := s.layerIndexes()
	if err != nil {
		return nil, err
	}
	out := append(blobs, indexes...)
	keys, err := os.ReadDir(filepath.Join(s.dir, MountsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, key := range keys {
		out = append(out, s.rooms(KindMount, filepath.Join(MountsDir, key.Name()), measure)...)
	}
	return append(out, s.rooms(KindUnpacked, UnpackedDir, measure)...), nil
}

// files lists the complete files of a directory. Those that are not, and are nobody's any more, are removed.
func (s *Shared) files(dir string) ([]Item, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Item
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !fi.Mode().IsRegular() {
			continue // gone meanwhile, or nothing of ours
		}
		full := filepath.Join(s.dir, dir, e.Name())
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if !s.readOnly && time.Since(fi.ModTime()) > leftAfter {
				_ = os.Remove(full)
			}
			continue
		}
		if checkHash(v1.Hash{Algorithm: "sha256", Hex: e.Name()}) != nil {
			continue
		}
		out = append(out, Item{
			Name: filepath.Join(dir, e.Name()), Size: fi.Size(), Used: fi.ModTime(),
			remove: func() error { return removeUnused(full) },
		})
	}
	return out, nil
}

func (s *Shared) layerIndexes() ([]Item, error) {
	layers, err := os.ReadDir(filepath.Join(s.dir, indexDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Item
	for _, l := range layers {
		files, err := s.files(filepath.Join(indexDir, l.Name()))
		if err != nil {
			continue // gone meanwhile
		}
		for _, f := range files {
			remove := f.remove
			f.Kind, f.Name = KindIndex, "sha256:"+l.Name()
			f.remove = func() error {
				err := remove()
				// Only if it was the last one.
				_ = os.Remove(filepath.Join(s.dir, indexDir, l.Name()))
				return err
			}
			out = append(out, f)
		}
	}
	return out, nil
}

func (s *Shared) rooms(kind, dir string, measure bool) []Item {
	var out []Item
	for _, r := range Rooms(filepath.Join(s.dir, dir)) {
		if measure {
			r.Measure()
		}
		out = append(out, Item{Kind: kind, Name: filepath.Join(dir, r.Name), About: r.About, Size: r.Size, Used: r.Used, remove: r.Remove})
	}
	return out
}

// inUse notes that a file is read, for as long as it is open. Where locks do not work it stays unnoted.
func inUse(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) }

// removeUnused removes a file that nobody has open by inUse.
func removeUnused(name string) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: %w", name, ErrBusy)
	}
	return os.Remove(name)
}

// Limits bound a Shared; 0 is no bound.
type Limits struct {
	// Size is that of everything, in bytes, TTL the time since the last use.
	Size int64
	TTL  time.Duration
}

// Set tells whether there is any bound.
func (l Limits) Set() bool { return l != Limits{} }

// Over are the items that have to go so that the others are within the limits: those too old, and then those that were not used for longest.
func Over(items []Item, l Limits, now time.Time) []Item {
	items = slices.SortedStableFunc(slices.Values(items), func(a, b Item) int { return a.Used.Compare(b.Used) })
	var total int64
	for _, i := range items {
		total += i.Size
	}
	n := 0
	for ; n < len(items); n++ {
		old := l.TTL > 0 && now.Sub(items[n].Used) > l.TTL
		if !old && (l.Size == 0 || total <= l.Size) {
			break
		}
		total -= items[n].Size
	}
	return items[:n]
}
