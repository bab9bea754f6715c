// SPDX-License-Identifier: Apache-2.0

package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// OpenFile opens an archive, or a single Dockerfile, on disk. An archive that is not compressed is read in place: nothing of it
// is stored anywhere else.
func OpenFile(ctx context.Context, s *store.Store, name string, o Options) (*Context, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // nobody may ever write to a fifo
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	return openFile(ctx, s, f, name, o)
}

// OpenStdin is OpenFile for the standard input. A pipe is read once, and all of it is kept.
func OpenStdin(ctx context.Context, s *store.Store, o Options) (*Context, error) {
	fd, err := unix.Dup(int(os.Stdin.Fd()))
	if err != nil {
		return nil, fmt.Errorf("build context: standard input: %w", err)
	}
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		_ = unix.Close(fd)
		return nil, errors.New("build context: the standard input is a terminal; send an archive or a Dockerfile")
	}
	return openFile(ctx, s, os.NewFile(uintptr(fd), "standard input"), "standard input", o)
}

func openFile(ctx context.Context, s *store.Store, f *os.File, name string, o Options) (*Context, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = errors.New("it is a directory; write dir://PATH")
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("build context %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		c, err := OpenArchive(ctx, s, name, Input{Reader: &patient{ctx: ctx, f: f}}, o)
		return c, errors.Join(err, f.Close())
	}
	l := &local{f: f, st: st}
	var c *Context
	if head := l.head(); isTar(head) {
		c, err = l.inPlace(ctx, name, o)
	} else {
		c, err = OpenArchive(ctx, s, name, Input{Reader: l.reader(), Again: l.again}, o)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if c.closer == nil {
		c.closer = f.Close
	} else {
		closer := c.closer
		c.closer = func() error { return errors.Join(closer(), f.Close()) }
	}
	return c, nil
}

// patient reads a pipe, and waits for what it has to say no longer than its context lives. What nobody writes to yet is waited for, too.
type patient struct {
	ctx context.Context //nolint:containedctx // it lives no longer than the call that made it
	f   *os.File
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	const glance = 200 // milliseconds
	for {
		if p.ctx.Err() != nil {
			return 0, context.Cause(p.ctx)
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}}, glance)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return 0, fmt.Errorf("poll: %w", err)
		case ready > 0:
			return p.f.Read(b)
		}
	}
}

// local is an archive on disk.
type local struct {
	f  *os.File
	st unix.Stat_t
}

func (l *local) head() []byte {
	b := make([]byte, tarBlock)
	n, _ := l.f.ReadAt(b, 0) // whoever reads on finds the error again
	return b[:n]
}

func (l *local) reader() io.Reader { return io.NewSectionReader(l.f, 0, l.st.Size) }

// again reads the file a second time, if it is still the same.
func (l *local) again() (io.ReadCloser, error) {
	return io.NopCloser(l.reader()), l.check()
}

func (l *local) check() error {
	var now unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &now); err != nil {
		return err
	}
	if now.Size != l.st.Size || now.Mtim != l.st.Mtim {
		return fmt.Errorf("the archive %w", ErrChanged)
	}
	return nil
}

// inPlace reads the headers and leaves the contents where they are.
func (l *local) inPlace(ctx context.Context, name string, o Options) (*Context, error) {
	a := &archive{ctx: ctx, name: name, opts: Options{Sub: o.Sub}}
	r := &seekable{ctx: ctx, SectionReader: io.NewSectionReader(l.f, 0, l.st.Size)}
	t, err := layer.ReadTar(r, layer.TarOptions{Check: a.check, Place: func(off, size int64) tree.Content {
		return &inPlace{from: l, name: a.current, off: off, size: size}
	}})
	if err == nil {
		end, _ := r.Seek(0, io.SeekCurrent)
		mark := make([]byte, tarBlock)
		if _, err = l.f.ReadAt(mark, max(0, end-tarBlock)); err == nil && [tarBlock]byte(mark) != [tarBlock]byte{} {
			err = fmt.Errorf("%w: the archive has no end mark", io.ErrUnexpectedEOF)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("build context %s: %w", name, err)
	}
	return FromTree(name, t, o.Sub)
}

// seekable stops when its context ends.
type seekable struct {
	*io.SectionReader
	ctx context.Context //nolint:containedctx // it lives no longer than the call that made it
}

func (s *seekable) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.SectionReader.Read(p)
}

// inPlace is a content in an archive on disk. It implements tree.Content.
type inPlace struct {
	from      *local
	name      string
	off, size int64
}

// Open implements tree.Content.
func (p *inPlace) Open() (io.ReadCloser, error) {
	f, off, err := p.FileRange()
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(f, off, p.size)), nil
}

// FileRange gives the file and the place in it, so that the kernel can copy the bytes. The file is not the caller's to close.
func (p *inPlace) FileRange() (*os.File, int64, error) {
	if err := p.from.check(); err != nil {
		return nil, 0, fmt.Errorf("build context: %s: %w", p.name, err)
	}
	return p.from.f, p.off, nil
}
