// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// asideName is where the root file system keeps what is put aside during a build: on the root itself, so that files get there by
// renaming, and at a fixed place, so that the next run in the same container finds what a killed one left.
const asideName = ".kaniko-go"

const (
	journalName = "journal"
	hiddenName  = "hidden"
	// takenName is there from when everything has been put aside until the root is empty again: only then is what the root
	// holds the build's, and to be removed.
	takenName = "taken"
)

// journal says what the root held before the build, for putting it back. It is written before anything is changed.
type journal struct {
	// Files are paths, relative to the root, that are put aside under their index.
	Files []string
	// Dirs are the directories, parents first; the first one is the root itself.
	Dirs []savedDir
}

type savedDir struct {
	Path     string
	Mode     uint32
	UID, GID int
	MTime    int64
}

// aside is the directory below the root with what was put there.
type aside struct {
	root    *os.File
	dir     *os.File
	lock    *os.File
	journal journal
	dirs    int
}

// errBusy says that another process holds the root.
var errBusy = errors.New("another build uses the root file system of this container")

// hide takes what the journal names out of the way. On failure it puts back what it had taken.
func hide(root *os.File, j journal) (*aside, error) {
	if err := unix.Mkdirat(int(root.Fd()), asideName, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("/%s: %w", asideName, err)
	}
	a := &aside{root: root, journal: j}
	err := a.open()
	if err == nil {
		err = a.begin()
	}
	if err != nil {
		if !errors.Is(err, errBusy) {
			err = errors.Join(err, a.putBack())
		}
		return nil, err
	}
	return a, nil
}

func (a *aside) open() error {
	var err error
	if a.dir, err = dirfd.Open(a.root, asideName, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return err
	}
	fd, err := unix.Openat(int(a.dir.Fd()), journalName, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	a.lock = os.NewFile(uintptr(fd), journalName)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errBusy
	}
	return nil
}

// begin writes the journal and puts the files aside.
func (a *aside) begin() error {
	if err := a.lock.Truncate(0); err != nil {
		return err
	}
	b, err := json.Marshal(a.journal)
	if err != nil {
		return err
	}
	if _, err := a.lock.WriteAt(b, 0); err != nil {
		return err
	}
	if err := unix.Mkdirat(int(a.dir.Fd()), hiddenName, 0o700); err != nil {
		return err
	}
	for i, p := range a.journal.Files {
		if err := unix.Renameat(int(a.root.Fd()), p, int(a.dir.Fd()), hidden(i)); err != nil {
			return fmt.Errorf("putting /%s aside: %w", p, err)
		}
	}
	for i := len(a.journal.Dirs) - 1; i > 0; i-- {
		// One that leads to a mount, and one that somebody stands in, may stay.
		_ = unix.Unlinkat(int(a.root.Fd()), a.journal.Dirs[i].Path, unix.AT_REMOVEDIR)
	}
	fd, err := unix.Openat(int(a.dir.Fd()), takenName, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func hidden(i int) string { return hiddenName + "/" + strconv.Itoa(i) }

// newDir makes a directory in which things are kept until the end.
func (a *aside) newDir(pattern string) (*os.File, error) {
	a.dirs++
	name := fmt.Sprintf("%s%d", pattern, a.dirs)
	if err := unix.Mkdirat(int(a.dir.Fd()), name, 0o700); err != nil {
		return nil, err
	}
	return dirfd.Open(a.dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// restore empties the root of what the build made and puts everything back. It may be killed at any moment, and then be called
// again by the next run.
func (a *aside) restore(kept *dirfd.Kept) error {
	var st unix.Stat_t
	if unix.Fstatat(int(a.dir.Fd()), takenName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		if err := unpack.Clear(a.root, kept); err != nil {
			return fmt.Errorf("emptying the root file system: %w", err)
		}
		if err := unix.Unlinkat(int(a.dir.Fd()), takenName, 0); err != nil {
			return err
		}
	}
	return a.putBack()
}

func (a *aside) putBack() error {
	var errs []error
	for i, d := range a.journal.Dirs {
		if i > 0 {
			if err := unix.Mkdirat(int(a.root.Fd()), d.Path, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, fmt.Errorf("/%s: %w", d.Path, err))
			}
		}
	}
	for i, p := range a.journal.Files {
		err := unix.Renameat(int(a.dir.Fd()), hidden(i), int(a.root.Fd()), p)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("putting /%s back: %w", p, err))
		}
	}
	for i := len(a.journal.Dirs) - 1; i >= 0; i-- {
		errs = append(errs, a.journal.Dirs[i].restore(a.root))
	}
	errs = append(errs, restoreKubelet(a.dir))
	if err := errors.Join(errs...); err != nil {
		return err // What could not be put back stays aside.
	}
	// Without it, there is nothing to put back.
	err := unix.Unlinkat(int(a.dir.Fd()), hiddenName, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err == nil {
		err = os.RemoveAll(filepath.Join(a.root.Name(), asideName))
	}
	return errors.Join(err, a.dir.Close(), a.lock.Close())
}

// restore gives a directory what it had. Whose owner has no place in our namespace stays as it is.
func (d savedDir) restore(root *os.File) error {
	f, err := dirfd.Open(root, d.Path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("/%s: %w", d.Path, err)
	}
	defer func() { _ = f.Close() }()
	_ = f.Chown(d.UID, d.GID)
	t := unix.NsecToTimespec(d.MTime)
	return errors.Join(
		unix.Fchmod(int(f.Fd()), d.Mode),
		unix.UtimesNanoAt(int(f.Fd()), ".", []unix.Timespec{t, t}, 0))
}

// recoverRoot puts back what a killed build had taken from the root. It does nothing where there is none, or where
// its builder is alive.
func recoverRoot(root *os.File) error {
	a := &aside{root: root}
	var st unix.Stat_t
	err := unix.Fstatat(int(root.Fd()), asideName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		err = a.open()
	}
	if err != nil {
		return err
	}
	if unix.Fstatat(int(a.dir.Fd()), hiddenName, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		// It had not begun, or had put everything back.
		return errors.Join(os.RemoveAll(filepath.Join(root.Name(), asideName)), a.dir.Close(), a.lock.Close())
	}
	b, err := os.ReadFile(fdPath(int(a.lock.Fd())))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &a.journal); err != nil {
		return fmt.Errorf("the journal of a killed build: %w", err)
	}
	kept, err := keptBy(nil)
	if err != nil {
		return err
	}
	// Files for RUN, which /dev holds because they are mounted there elsewhere.
	_ = os.RemoveAll(pipesDir)
	return a.restore(kept)
}

// survey is what the root holds besides mounts.
type survey struct {
	journal
	foreign []string
}

// maxForeign is the most files of others that are put aside when that is asked for.
const maxForeign = 10_000

// look lists what is in the root but kept by nobody: files that are ours go into the journal, as do directories; others are foreign.
func look(root *os.File, kept *dirfd.Kept, ours map[string]bool) (*survey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return nil, err
	}
	s := &survey{}
	s.Dirs = append(s.Dirs, saved("", &st))
	if err := s.dir(root, "", kept, ours); err != nil {
		return nil, err
	}
	return s, nil
}

func saved(p string, st *unix.Stat_t) savedDir {
	return savedDir{Path: p, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), MTime: st.Mtim.Nano()}
}

func (s *survey) dir(root *os.File, p string, kept *dirfd.Kept, ours map[string]bool) error {
	d, err := dirfd.Open(root, p, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		if err := s.entry(root, d, name, filepath.Join(p, name), kept.Child(name), ours); err != nil {
			return err
		}
		if len(s.foreign) > maxForeign {
			return nil
		}
	}
	return nil
}

func (s *survey) entry(root, dir *os.File, name, p string, kept *dirfd.Kept, ours map[string]bool) error {
	if kept.Whole() {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("/%s: %w", p, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		s.Dirs = append(s.Dirs, saved(p, &st))
		return s.dir(root, p, kept, ours)
	}
	if !ours["/"+p] {
		s.foreign = append(s.foreign, p)
	}
	s.Files = append(s.Files, p)
	return nil
}
