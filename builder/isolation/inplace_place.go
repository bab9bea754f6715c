// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

// place is where something stands in for a mount: a name in a directory that is held open.
type place struct {
	dir  *os.File
	name string
	path string
	// covers says that something of the image was there. Then the directory keeps the times that it had before: nothing is made in
	// it by a mount. Otherwise it has those of now, as when a mount point is made.
	covers bool
	before unix.Stat_t
}

// place makes room at a path of the image: what is missing above is made, what is there is put aside until the end.
func (e *emulation) place(target string) (*place, error) {
	real, err := e.root.real(target)
	if err != nil {
		return nil, err
	}
	if real == "" {
		return nil, unix.EISDIR
	}
	if k := e.host.kept.At(real); k.Whole() && e.host.mountOf("/"+real) == "/"+real || k.Leads() {
		return nil, &RefusedError{What: "mounting on /" + real, Why: "something of the container is mounted there or below"}
	}
	parent := path.Dir(real)
	if parent == "." {
		parent = ""
	} else if err := e.root.ensure(parent, true, func(stub string) { e.stubs = append(e.stubs, stub) }); err != nil {
		return nil, err
	}
	p := &place{name: path.Base(real), path: real}
	if p.dir, err = dirfd.Open(e.host.root, parent, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return nil, err
	}
	if p.before, err = p.times(); err == nil {
		err = e.putAside(p)
	}
	if err != nil {
		return nil, errors.Join(err, p.dir.Close())
	}
	e.places = append(e.places, p)
	return p, nil
}

// putAside moves what is at the place away, and notes that it comes back.
func (e *emulation) putAside(p *place) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(p.dir.Fd()), p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	store, err := e.host.aside.newDir("image-")
	if err != nil {
		return err
	}
	if err := unix.Renameat(int(p.dir.Fd()), p.name, int(store.Fd()), "0"); err != nil {
		_ = store.Close()
		if errors.Is(err, unix.EXDEV) {
			return &RefusedError{What: "mounting on /" + p.path, Why: "that path lies in a mount of the container, and something is there already"}
		}
		return err
	}
	p.covers = true
	e.undo = append(e.undo, func() error {
		err := unix.Renameat(int(store.Fd()), "0", int(p.dir.Fd()), p.name)
		if errors.Is(err, unix.ENOENT) {
			err = nil // The command removed the directory.
		}
		return errors.Join(err, store.Close())
	})
	return nil
}

// clear removes whatever is at the place.
func (p *place) clear() error {
	if err := unpack.Remove(p.dir, p.name); err != nil {
		return fmt.Errorf("removing what stood in for a mount on /%s: %w", p.path, err)
	}
	return nil
}

// is tells whether the place still has the file that st is of.
func (p *place) is(st *unix.Stat_t) bool {
	var now unix.Stat_t
	return unix.Fstatat(int(p.dir.Fd()), p.name, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && now.Ino == st.Ino && now.Dev == st.Dev
}

// times are those of the directory.
func (p *place) times() (st unix.Stat_t, err error) {
	err = unix.Fstat(int(p.dir.Fd()), &st)
	return st, err
}

// setTimes gives a directory times. One that is removed by now has none.
func setTimes(dir *os.File, st *unix.Stat_t) error {
	err := unix.UtimesNanoAt(int(dir.Fd()), ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
