// SPDX-License-Identifier: Apache-2.0

// Package buildcontext gives read-only access to what a build is made from.
//
// A Context is opened once and never written to. Its Tree shows what the ignore file leaves, owned by
// 0:0 as in every builder; directories are read when something asks for them, so what no COPY names costs
// nothing. Files are opened by directory descriptor without following links.
package buildcontext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/dirfd"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Errors about contents of a context that was opened; others wrap them.
var (
	// ErrChanged is a content that is not what it was.
	ErrChanged = errors.New("changed while the image was built")
	// ErrAgain is an archive that was needed a second time.
	ErrAgain = errors.New("reading the archive again")
)

// fileLimit bounds Dockerfiles and ignore files.
const fileLimit = 1 << 20

// Context is a directory on disk, or a Tree that came from elsewhere. It is safe for concurrent use.
type Context struct {
	// root is the directory; nil where there is a Tree.
	root *os.File
	name string

	// fixed is the Tree of a context that is no directory; single its only file, if that is all that came.
	fixed   *tree.Tree
	single  *Dockerfile
	spooled *archive
	closer  func() error

	mu sync.Mutex
	// linked finds the further names of files that have several.
	linked map[inodeKey]*tree.Inode
}

type inodeKey struct{ dev, ino uint64 }

// Open opens the directory dir, and in it the directory sub.
func Open(dir, sub string) (*Context, error) {
	// A context may be a symbolic link: Argo mounts its input artifacts so.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	if sub = path.Clean(strings.TrimLeft(sub, "/")); sub == "." {
		sub = ""
	}
	if real == "/" && sub == "" {
		return nil, fmt.Errorf("build context %s: the root of this container, which has more in it than sources, credentials for one; name the directory that they are in", dir)
	}
	root, err := os.OpenFile(real, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("build context %s: it is a file, not a directory; an archive is named tar://%s", dir, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	if sub == "" {
		return &Context{root: root, name: dir, linked: map[inodeKey]*tree.Inode{}}, nil
	}
	inner, err := dirfd.Open(root, sub, unix.O_RDONLY|unix.O_DIRECTORY)
	if closeErr := root.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("build context %s: sub-directory: %w", dir, err)
	}
	return &Context{root: inner, name: path.Join(dir, sub), linked: map[inodeKey]*tree.Inode{}}, nil
}

// FromTree is a context that was fetched as a whole. sub is a directory in it that takes its place.
func FromTree(name string, t *tree.Tree, sub string) (*Context, error) {
	c := &Context{name: name, fixed: t}
	if sub == "" {
		return c, nil
	}
	if err := c.enter(sub); err != nil {
		return nil, fmt.Errorf("build context %s: %w", name, err)
	}
	return c, nil
}

// enter takes a directory of the Tree for the whole.
func (c *Context) enter(sub string) error {
	ino, err := c.fixed.Stat(sub)
	if err == nil && ino.Type != tree.Dir {
		err = &fs.PathError{Op: "open", Path: sub, Err: unix.ENOTDIR}
	}
	if err != nil {
		return fmt.Errorf("sub-directory: %w", err)
	}
	c.fixed = tree.FromRoot(ino)
	return nil
}

// Kept is how many bytes of the files of an archive were stored and how many passed over; 0 for every other context.
func (c *Context) Kept() (stored, passed int64) {
	if c.spooled == nil {
		return 0, 0
	}
	c.spooled.mu.Lock()
	defer c.spooled.mu.Unlock()
	return c.spooled.Written, c.spooled.Passed
}

// Close lets go of what the context lies in. Contents cannot be read any more.
func (c *Context) Close() error {
	switch {
	case c.root != nil:
		return c.root.Close()
	case c.closer != nil:
		return c.closer()
	default:
		return nil
	}
}

// Name is how people know the context.
func (c *Context) Name() string { return c.name }

// Dockerfile is a Dockerfile as it was found.
type Dockerfile struct {
	// Name is what messages call it.
	Name string
	Data []byte
	// Ignore is the text of NAME.dockerignore beside it, nil if there is none.
	Ignore []byte
}

// Dockerfile finds and reads the Dockerfile: name is absolute, or relative to the working directory, or relative to
// the context; the first that exists is it. A lower-case "dockerfile" stands in for a missing "Dockerfile". A context that came as a
// single Dockerfile has it under every name, and only a file on disk of another name than "Dockerfile" is preferred to it.
func (c *Context) Dockerfile(name string) (*Dockerfile, error) {
	if c.single == nil || name != "Dockerfile" {
		if d, err := DockerfileOnDisk(name); d != nil || err != nil {
			return d, err
		}
	}
	if c.single != nil {
		return c.single, nil
	}
	if !filepath.IsAbs(name) {
		for _, p := range names(name) {
			d, err := readDockerfile(filepath.Base(p), func(suffix string) ([]byte, error) { return c.readFile(p + suffix) })
			if d != nil || err != nil {
				return d, err
			}
		}
	}
	return nil, fmt.Errorf("dockerfile %s: %w: neither in the working directory nor in the build context %s", name, fs.ErrNotExist, c.name)
}

// names are those under which a Dockerfile is looked for in one place.
func names(name string) []string {
	if filepath.Base(name) == "Dockerfile" {
		return []string{name, filepath.Join(filepath.Dir(name), "dockerfile")}
	}
	return []string{name}
}

// DockerfileOnDisk reads a Dockerfile that is absolute or relative to the working directory; nil if there is none.
func DockerfileOnDisk(name string) (*Dockerfile, error) {
	tries := []string{name}
	if filepath.IsAbs(name) {
		tries = names(name)
	}
	for _, p := range tries {
		d, err := readDockerfile(filepath.Base(p), func(suffix string) ([]byte, error) { return readFile(p + suffix) })
		if d != nil || err != nil {
			return d, err
		}
	}
	return nil, nil //nolint:nilnil // as the comment says
}

// readDockerfile reads a Dockerfile and its own ignore file; nil if there is no Dockerfile.
func readDockerfile(base string, read func(suffix string) ([]byte, error)) (*Dockerfile, error) {
	data, err := read("")
	if isMissing(err) {
		return nil, nil //nolint:nilnil // as the comment says
	}
	if err != nil {
		return nil, fmt.Errorf("dockerfile: %w", err)
	}
	ignore, err := read(".dockerignore")
	if err != nil && !isMissing(err) {
		return nil, fmt.Errorf("ignore file: %w", err)
	}
	return &Dockerfile{Name: base, Data: data, Ignore: ignore}, nil
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, tree.ErrNotDir)
}

// path is the context's place for the few uses that have no descriptor to begin with.
func (c *Context) path() string { return fmt.Sprintf("/proc/self/fd/%d", c.root.Fd()) }

// readFile reads a small file of the context.
func (c *Context) readFile(name string) ([]byte, error) {
	if c.root != nil {
		return readFile(filepath.Join(c.path(), name))
	}
	return c.fixed.ReadFile(name, fileLimit)
}

// readFile reads a small regular file. A fifo in its place is not waited for.
func readFile(p string) ([]byte, error) {
	f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: p, Err: errors.New("not a regular file")}
	}
	if st.Size() > fileLimit {
		return nil, &fs.PathError{Op: "read", Path: p, Err: fmt.Errorf("%d bytes, more than the limit of %d", st.Size(), fileLimit)}
	}
	return io.ReadAll(io.LimitReader(f, fileLimit+1))
}

// Ignore returns the matcher for d, which may be nil: its own ignore file, or else the context's .dockerignore; nil if
// there is neither.
func (c *Context) Ignore(d *Dockerfile) (*dockerfile.Matcher, error) {
	var (
		text []byte
		name = ".dockerignore"
		err  error
	)
	if d != nil && d.Ignore != nil {
		text, name = d.Ignore, d.Name+".dockerignore"
	} else {
		if text, err = c.readFile(name); isMissing(err) {
			return nil, nil
		} else if err != nil {
			return nil, fmt.Errorf("ignore file: %w", err)
		}
	}
	m, err := dockerfile.ReadIgnore(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}
