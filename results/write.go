// SPDX-License-Identifier: Apache-2.0

package results

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of files that are not in place yet. A run that
// was killed may leave some; the next one removes them.
const tempPrefix = ".kaniko-go-result-"

// writeSet writes all files or none.
func writeSet(files []file) (err error) {
	temps := make([]string, len(files))
	placed := 0
	defer func() {
		if err == nil {
			return
		}
		for i, f := range files {
			// The error that is on its way says why; there is nothing to add to it.
			if temps[i] != "" {
				_ = os.Remove(temps[i])
			}
			if i < placed {
				_ = remove(f.path)
			}
		}
	}()
	for i, f := range files {
		if temps[i], err = prepare(f); err != nil && !writableInPlace(f.path) {
			return err
		}
	}
	for i, f := range files {
		if err = place(temps[i], f); err != nil {
			return err
		}
		temps[i] = ""
		placed = i + 1
	}
	return nil
}

// prepare writes f beside its place and gives the name. On an error nothing is left.
func prepare(f file) (tmp string, err error) {
	out, err := os.CreateTemp(filepath.Dir(f.path), tempPrefix+"*")
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			_ = os.Remove(out.Name())
			tmp = ""
		}
	}()
	if err := out.Chmod(0o644); err != nil { // whatever the umask says
		return "", err
	}
	if _, err := out.WriteString(f.content); err != nil {
		return "", err
	}
	return out.Name(), out.Sync()
}

// place moves the prepared file to where it belongs. Some files cannot be
// replaced, only written: /dev/termination-log is a mount, and a file may be
// writable in a directory that is not.
func place(tmp string, f file) error {
	if tmp == "" {
		return overwrite(f.path, f.content)
	}
	if info, err := os.Lstat(f.path); err == nil && info.IsDir() {
		if err := os.Remove(f.path); err != nil {
			return fmt.Errorf("a directory is in the way: %w", err)
		}
	}
	err := os.Rename(tmp, f.path)
	if errors.Is(err, unix.EBUSY) {
		err = errors.Join(overwrite(f.path, f.content), os.Remove(tmp))
	}
	return err
}

// overwrite replaces the content of a regular file that exists. It follows no
// link and does not wait for the reader of a FIFO.
func overwrite(path, content string) (err error) {
	out, err := openRegular(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(0); err != nil {
		return err
	}
	_, err = out.WriteString(content)
	return err
}

func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// writableInPlace says whether path is a regular file that can be overwritten.
func writableInPlace(path string) bool {
	f, err := openRegular(path)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// remove removes path if it is there; what is a mount is emptied instead, and
// so is a file in a directory that cannot be written.
func remove(path string) error {
	err := os.Remove(path)
	switch {
	case err == nil, errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTDIR): // below a file there is nothing; Probe says what is wrong with that
		return nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s is a directory with files in it; give the name of a file", path)
	case errors.Is(err, unix.EBUSY), errors.Is(err, os.ErrPermission):
		if overwrite(path, "") == nil {
			return nil
		}
	}
	return err
}
