// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxCredentials is the most that a file with credentials may have and be put away.
const maxCredentials = 1 << 20

// putAway are files whose contents are in memory only, because a RUN in the same root could read them.
type putAway struct {
	path     string
	data     []byte
	mode     os.FileMode
	uid, gid int
}

// wipe takes files from the disk: they are overwritten, then removed. It returns why others stay where a RUN can read them,
// such as those on a volume that is mounted read-only.
func wipe(paths []string) (away []putAway, left []string) {
	for _, p := range paths {
		a, err := wipeOne(p)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			left = append(left, fmt.Sprintf("RUN can read the credentials in %s (%v)", p, err))
		default:
			away = append(away, a)
		}
	}
	return away, left
}

func wipeOne(p string) (putAway, error) {
	f, err := os.OpenFile(p, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return putAway{}, errors.Unwrap(err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return putAway{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxCredentials {
		return putAway{}, fmt.Errorf("no regular file of at most %d bytes", maxCredentials)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return putAway{}, err
	}
	if err := unix.Access(filepath.Dir(p), unix.W_OK); err != nil {
		return putAway{}, err
	}
	if _, err := f.WriteAt(make([]byte, len(data)), 0); err != nil {
		return putAway{}, err
	}
	a := putAway{path: p, data: data, mode: os.FileMode(st.Mode & 0o777), uid: int(st.Uid), gid: int(st.Gid)}
	if err := errors.Join(f.Sync(), os.Remove(p)); err != nil {
		return putAway{}, errors.Join(err, a.restore())
	}
	return a, nil
}

// restore makes the file again, if nothing else has taken its place.
func (a putAway) restore() error {
	if err := os.MkdirAll(filepath.Dir(a.path), 0o755); err != nil {
		return err
	}
	_ = os.Remove(a.path)
	f, err := os.OpenFile(a.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(a.data)
	return errors.Join(err, f.Chown(a.uid, a.gid), f.Chmod(a.mode), f.Close())
}

func restoreAll(away []putAway) error {
	var errs []error
	for _, a := range away {
		errs = append(errs, a.restore())
	}
	return errors.Join(errs...)
}
