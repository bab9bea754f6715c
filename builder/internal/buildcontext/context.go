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

// fileLimit bounds Dockerfiles and ignore files.
const fileLimit = 1 << 20

// Context is a directory on disk. It is safe for concurrent use.
type Context struct {
	root *os.File
	name string

	mu sync.Mutex
	// linked finds the further names of files that have several.
	linked map[inodeKey]*tree.Inode
}

type inodeKey struct{ dev, ino uint64 }

// Open opens the directory location, which may be written dir://path, and in it the directory sub.
func Open(location, sub string) (*Context, error) {
	dir := strings.TrimPrefix(location, "dir://")
	if scheme, _, ok := strings.Cut(dir, "://"); ok {
		return nil, fmt.Errorf("build context %s: contexts of kind %s:// are not supported; give a directory", location, scheme)
	}
	// A context may be a symbolic link: Argo mounts its input artifacts so.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	root, err := os.OpenFile(real, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	if sub == "" {
		return &Context{root: root, name: dir, linked: map[inodeKey]*tree.Inode{}}, nil
	}
	inner, err := dirfd.Open(root, path.Clean(strings.TrimLeft(sub, "/")), unix.O_RDONLY|unix.O_DIRECTORY)
	if closeErr := root.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, fmt.Errorf("build context %s: sub-directory: %w", dir, err)
	}
	return &Context{root: inner, name: path.Join(dir, sub), linked: map[inodeKey]*tree.Inode{}}, nil
}

// Close closes the directory. Contents cannot be read any more.
func (c *Context) Close() error { return c.root.Close() }

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
// the context; the first that exists is it. A lower-case "dockerfile" stands in for a missing "Dockerfile".
func (c *Context) Dockerfile(name string) (*Dockerfile, error) {
	if strings.Contains(name, "://") {
		return nil, fmt.Errorf("dockerfile %s: fetching it from a URL is not supported; give a path", name)
	}
	tries := []string{name}
	if !filepath.IsAbs(name) {
		tries = append(tries, filepath.Join(c.path(), name))
	}
	if filepath.Base(name) == "Dockerfile" {
		tries = append(tries, filepath.Join(filepath.Dir(tries[len(tries)-1]), "dockerfile"))
	}
	for _, p := range tries {
		data, err := readFile(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("dockerfile: %w", err)
		}
		ignore, err := readFile(p + ".dockerignore")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("ignore file: %w", err)
		}
		return &Dockerfile{Name: filepath.Base(p), Data: data, Ignore: ignore}, nil
	}
	return nil, fmt.Errorf("dockerfile %s: %w: neither in the working directory nor in the build context %s", name, fs.ErrNotExist, c.name)
}

// path is the context's place for the few uses that have no descriptor to begin with.
func (c *Context) path() string { return fmt.Sprintf("/proc/self/fd/%d", c.root.Fd()) }

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
		if text, err = readFile(filepath.Join(c.path(), name)); errors.Is(err, fs.ErrNotExist) {
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
