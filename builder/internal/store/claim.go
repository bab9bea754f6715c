// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrBusy says that another build, or another part of this one, holds a directory in a way that excludes ours.
	ErrBusy = errors.New("it is in use")
	// ErrMaking says that another one is making the directory at this moment.
	ErrMaking = errors.New("it is being made")
)

// lockSuffix is what the name of a claim's lock has more than that of the directory.
const lockSuffix = ".lock"

// Claim is a directory that outlives builds, while one of them holds it. The lock is a file beside the directory, which the kernel
// lets go of with the process. The file's time of modification is when the directory was last claimed, its content is a [Label].
type Claim struct {
	// Path is the directory.
	Path string
	lock *os.File
}

// Label is what is known of a claimed directory without looking into it.
type Label struct {
	// About is what people call it.
	About string `json:"about,omitempty"`
	// Size is that of all files when it was last measured, in bytes.
	Size int64 `json:"size"`
}

// Want says how a directory is claimed.
type Want struct {
	// Exclusive shuts everybody else out. Otherwise all who do not ask for that have it together.
	Exclusive bool
	// Make makes the directory at path, which has another name than the one it gets when Make is done. nil: one that is missing is
	// fs.ErrNotExist.
	Make func(path string) error
	// Refill makes a directory anew that is empty, where nobody else has it.
	Refill bool
}

// ClaimDir claims the directory name in dir; dir is made if it is missing. The error is ErrBusy or ErrMaking where another one has the
// directory, fs.ErrNotExist as Want says, or that of Make. A directory is complete or not there.
func ClaimDir(dir, name string, w Want) (*Claim, error) {
	if w.Make != nil {
		if err := os.MkdirAll(dir, 0o775); err != nil {
			return nil, err
		}
	}
	c := &Claim{Path: filepath.Join(dir, name)}
	var err error
	if c.lock, err = openLock(c.Path+lockSuffix, w.Make != nil); err != nil {
		return nil, err
	}
	if err := c.take(w); err != nil {
		c.Release()
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(c.lock.Name(), now, now)
	return c, nil
}

// openLock opens the file, for reading only where nothing can be written.
func openLock(name string, create bool) (*os.File, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(name, flags, 0o664)
	if !create && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)) {
		return os.Open(name)
	}
	return f, err
}

func (c *Claim) take(w Want) error {
	how := unix.LOCK_SH
	if w.Exclusive {
		how = unix.LOCK_EX
	}
	if err := c.flock(how); err != nil {
		return c.orMaking(err)
	}
	if w.Exclusive {
		if err := c.recover(); err != nil {
			return err
		}
	}
	missing, empty := c.state()
	if !missing && (!empty || !w.Refill) {
		return nil
	}
	if w.Make == nil {
		return fmt.Errorf("%s: %w", c.Path, fs.ErrNotExist)
	}
	if !w.Exclusive {
		if err := c.flock(unix.LOCK_EX); err != nil {
			if !missing && errors.Is(err, ErrBusy) {
				return c.flock(how) // others have it empty; so have we
			}
			return c.orMaking(err)
		}
		if err := c.recover(); err != nil {
			return err
		}
		// The lock was let go of for a moment.
		if missing, empty = c.state(); !missing && (!empty || !w.Refill) {
			return c.flock(how)
		}
	}
	if err := c.make(w.Make); err != nil {
		return err
	}
	return c.flock(how)
}

// orMaking tells a directory that is in use from one that is not there yet.
func (c *Claim) orMaking(err error) error {
	if missing, _ := c.state(); missing && errors.Is(err, ErrBusy) {
		return fmt.Errorf("%s: %w", c.Path, ErrMaking)
	}
	return err
}

// flock takes the lock if it can be had at once, and if the file has its name still: whoever removes it holds the lock.
func (c *Claim) flock(how int) error {
	for {
		err := unix.Flock(int(c.lock.Fd()), how|unix.LOCK_NB)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s: %w", c.Path, ErrBusy)
		}
		if err != nil {
			return fmt.Errorf("lock %s: %w", c.lock.Name(), err)
		}
		break
	}
	mine, err := c.lock.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Stat(c.lock.Name()); err != nil || !os.SameFile(mine, named) {
		return fmt.Errorf("%s: %w", c.Path, ErrMaking)
	}
	return nil
}

// recover ends what a build in place that was killed had begun: it puts a copy beside the directory, and removes the directory when
// the copy is complete. The caller has the exclusive lock.
func (c *Claim) recover() error {
	fresh := c.Path + ".new"
	if _, err := os.Lstat(fresh); err != nil {
		return nil //nolint:nilerr // there is none
	}
	if missing, _ := c.state(); missing {
		return os.Rename(fresh, c.Path)
	}
	return removeAll(fresh)
}

// state looks at the directory.
func (c *Claim) state() (missing, empty bool) {
	f, err := os.Open(c.Path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist), false
	}
	defer func() { _ = f.Close() }()
	_, err = f.Readdirnames(1)
	return false, errors.Is(err, io.EOF)
}

// make makes the directory, under the exclusive lock.
func (c *Claim) make(work func(path string) error) error {
	room := filepath.Join(filepath.Dir(c.Path), tempPrefix+filepath.Base(c.Path))
	if err := removeAll(room); err != nil {
		return err
	}
	if err := privateDir(room); err != nil {
		return err
	}
	defer func() { _ = removeAll(room) }()
	fresh := filepath.Join(room, "0")
	if err := work(fresh); err != nil {
		return err
	}
	// Unlike os.Rename it takes the place of an empty directory.
	return unix.Rename(fresh, c.Path)
}

// privateDir makes a directory with our own group and no set-group-id bit, as [Store.TempDir] does.
func privateDir(name string) error {
	if err := os.Mkdir(name, 0o700); err != nil {
		return err
	}
	if err := os.Chown(name, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	return os.Chmod(name, 0o700)
}

// Label describes the directory to whoever lists it. It does nothing where nothing can be written.
func (c *Claim) Label(l Label) {
	raw, err := json.Marshal(l)
	if err != nil {
		return
	}
	if _, err := c.lock.WriteAt(raw, 0); err == nil {
		_ = c.lock.Truncate(int64(len(raw)))
	}
}

// Known is what the directory is described by, nothing if that was never done.
func (c *Claim) Known() Label {
	l, _ := readLabel(c.lock.Name())
	return l
}

func readLabel(name string) (l Label, err error) {
	raw, err := os.ReadFile(name)
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &l)
	}
	return l, err
}

// Release lets the directory go.
func (c *Claim) Release() { _ = c.lock.Close() }

// Room is a directory that can be claimed, as it is listed.
type Room struct {
	Label
	// Dir and Name are those of ClaimDir.
	Dir, Name string
	// Used is when it was last claimed.
	Used time.Time
}

// Rooms lists the directories of dir that can be claimed.
func Rooms(dir string) []Room {
	locks, err := filepath.Glob(filepath.Join(dir, "*"+lockSuffix))
	if err != nil {
		return nil
	}
	var out []Room
	for _, lock := range locks {
		fi, err := os.Stat(lock)
		if err != nil {
			continue
		}
		r := Room{Dir: dir, Name: strings.TrimSuffix(filepath.Base(lock), lockSuffix), Used: fi.ModTime()}
		if l, err := readLabel(lock); err == nil {
			r.Label = l
		}
		out = append(out, r)
	}
	return out
}

// Measure counts the bytes of the files in the directory.
func (r *Room) Measure() int64 {
	r.Size = measure(filepath.Join(r.Dir, r.Name))
	return r.Size
}

func measure(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read is not counted
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// Remove removes the directory, unless somebody has it: ErrBusy.
func (r *Room) Remove() error {
	c, err := ClaimDir(r.Dir, r.Name, Want{Exclusive: true, Make: func(path string) error { return os.Mkdir(path, 0o700) }})
	if err != nil {
		return err
	}
	defer c.Release()
	gone := filepath.Join(r.Dir, tempPrefix+r.Name)
	err = errors.Join(removeAll(gone), os.Rename(c.Path, gone))
	if err == nil {
		err = errors.Join(removeAll(gone), os.Remove(c.lock.Name()))
	}
	// Only if it was the last one.
	_ = os.Remove(r.Dir)
	return err
}
