// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// short is a content for a description.
func short(data string) string {
	if len(data) <= 40 {
		return fmt.Sprintf("%q", data)
	}
	return fmt.Sprintf("sha256:%.8x", sha256.Sum256([]byte(data)))
}

// List describes every path below a directory: type, mode, owner, time in seconds, size and content, link target, device,
// extended attributes, and which names are one inode.
func List(dir string) (map[string]string, error) {
	out := map[string]string{}
	inodes := map[uint64][]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel := strings.TrimPrefix(p, dir+"/")
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if out[rel], err = describe(p, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			inodes[st.Ino] = append(inodes[st.Ino], rel)
		}
		return nil
	})
	for _, paths := range inodes {
		sort.Strings(paths)
		for _, p := range paths {
			if len(paths) > 1 {
				out[p] += " names=" + strings.Join(paths, ",")
			}
		}
	}
	return out, err
}

func describe(p string, st *unix.Stat_t) (string, error) {
	types := map[uint32]byte{
		unix.S_IFREG: '0', unix.S_IFLNK: '2', unix.S_IFCHR: '3', unix.S_IFBLK: '4', unix.S_IFDIR: '5', unix.S_IFIFO: '6', unix.S_IFSOCK: 's',
	}
	var data, link string
	var err error
	typ := types[st.Mode&unix.S_IFMT]
	switch typ {
	case '0':
		var b []byte
		b, err = os.ReadFile(p)
		data = string(b)
	case '2':
		link, err = os.Readlink(p)
	}
	if err != nil {
		return "", err
	}
	xattrs, err := attributes(p)
	return Line(typ, int64(st.Mode&0o7777), int64(st.Uid), int64(st.Gid), st.Mtim.Sec, st.Size, data, link,
		int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), xattrs), err
}

func attributes(p string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil, ignoreUnsupported(err)
	}
	out := map[string]string{}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, string(name), value)
		if err != nil {
			return nil, err
		}
		out[string(name)] = string(value[:n])
	}
	return out, nil
}

func ignoreUnsupported(err error) error {
	if err == unix.EOPNOTSUPP { //nolint:errorlint // a plain errno
		return nil
	}
	return err
}

// Canaries are files and directories around a root that nobody may touch.
type Canaries struct {
	// Dir holds everything; Outside is a protected directory in it, on the file system of the roots.
	Dir, Outside string
	before       string
}

// NewCanaries makes them in an empty directory. Roots are to be made in Dir as "root...".
func NewCanaries(dir string) (*Canaries, error) {
	c := &Canaries{Dir: dir, Outside: filepath.Join(dir, "P")}
	if err := os.MkdirAll(filepath.Join(c.Outside, "sub"), 0o750); err != nil {
		return nil, err
	}
	for _, p := range []string{"f", "secret", "P/f", "P/secret", "P/sub/f", "later"} {
		if err := os.WriteFile(filepath.Join(dir, p), []byte("canary"), 0o640); err != nil {
			return nil, err
		}
	}
	if err := os.Symlink("P/secret", filepath.Join(dir, "x")); err != nil {
		return nil, err
	}
	var err error
	c.before, err = c.state()
	return c, err
}

// Check returns an error that shows what changed: content, inode number, number of links, mode, owner, time, or a name.
func (c *Canaries) Check() error {
	now, err := c.state()
	if err != nil {
		return err
	}
	if now != c.before {
		return fmt.Errorf("outside the root something changed:\n%s\nbefore:\n%s", now, c.before)
	}
	return nil
}

// state leaves out the roots and the times of Dir, which change when a root is made.
func (c *Canaries) state() (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(c.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == c.Dir {
			return nil
		}
		if filepath.Dir(p) == c.Dir && strings.HasPrefix(d.Name(), "root") {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		text, err := describe(p, &st)
		fmt.Fprintf(&b, "%s inode %d links %d ctime %d.%d %s\n", p, st.Ino, st.Nlink, st.Ctim.Sec, st.Ctim.Nsec, text)
		return err
	})
	if err != nil {
		return "", err
	}
	// The same names at the root of this machine and where links to processes lead.
	for _, p := range []string{"/f", "/P", "/x", "/later", "/secret", "/d", "/missing", "/used"} {
		if _, err := os.Lstat(p); err == nil {
			fmt.Fprintf(&b, "%s is there\n", p)
		}
	}
	return b.String(), nil
}
