// SPDX-License-Identifier: Apache-2.0

package buildcontext

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// Input is where the bytes of an archive come from.
type Input struct {
	io.Reader
	// Again opens the same bytes a second time; nil if that cannot be done. It may be called after the end of Reader.
	Again func() (io.ReadCloser, error)
}

// Selector chooses what of an archive is kept. It is asked once, when the Dockerfile has come by, and returns
// whether a build may need a file, by its name in the context.
type Selector func(d *Dockerfile) (func(name string) bool, error)

// Options say how an archive is opened.
type Options struct {
	// Sub is a directory in the archive that takes the place of the whole.
	Sub string
	// Dockerfile is its name, as Context.Dockerfile takes it.
	Dockerfile string
	// Given is the Dockerfile where it does not come from the archive.
	Given *Dockerfile
	// Select may be nil: then all is kept.
	Select Selector
}

// provisional is how many bytes are kept of what comes before the Dockerfile, where the rest can be read a second time.
const provisional = 64 << 20

// What a compressed archive may become: so many times its size, or so much in any case.
const (
	maxRatio   = 1000
	ratioFloor = 1 << 30
)

// archive is a tar file that is read once. The spool has the contents that are kept at the offsets at which the
// uncompressed tar file has them, and holes for the rest.
type archive struct {
	ctx   context.Context //nolint:containedctx // contents know none
	name  string
	input Input
	opts  Options
	spool *os.File

	current string // the name of the header that was checked last, in the context; "" if it is not below Sub
	want    func(name string) bool
	early   int64
	found   *piece // the Dockerfile, from when its header was seen until want is known
	err     error  // what Select said

	mu     sync.Mutex
	pieces []*piece
	filled bool
	// Written and Passed are the bytes of contents that were kept and that were not.
	Written, Passed int64
}

// piece is the content of a file, or a part of it. It implements tree.Content.
type piece struct {
	from      *archive
	name      string
	off, size int64
	have      bool
}

// OpenArchive reads a tar file, compressed or not, or a single Dockerfile, from in. What is kept lies in a nameless file
// of the store. An error of in comes back as it is; everything else that is wrong is the archive's.
func OpenArchive(ctx context.Context, s *store.Store, name string, in Input, o Options) (*Context, error) {
	a := &archive{ctx: ctx, name: name, input: in, opts: o}
	source := &failing{r: layer.Until(ctx, in.Reader)}
	c, err := a.open(s, source)
	switch {
	case err == nil:
		return c, nil
	case a.spool != nil:
		err = errors.Join(err, a.spool.Close())
	}
	switch {
	case a.err != nil:
		return nil, a.err
	case source.err != nil:
		return nil, fmt.Errorf("build context: %w", source.err)
	}
	return nil, fmt.Errorf("build context %s: %w", name, err)
}

func (a *archive) open(s *store.Store, source io.Reader) (*Context, error) {
	counted := &counter{r: source}
	z, err := layer.Decompress(counted)
	if err != nil {
		return nil, err
	}
	defer func() { _ = z.Close() }()
	b := bufio.NewReaderSize(&bounded{r: z, in: counted}, 128<<10)
	head, err := b.Peek(tarBlock)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !isTar(head) {
		return a.single(b)
	}
	if a.spool, err = s.Spool(); err != nil {
		return nil, err
	}
	if a.opts.Given != nil {
		if err := a.choose(a.opts.Given); err != nil {
			return nil, err
		}
	}
	k := &keeper{r: b, a: a}
	t, err := layer.ReadTar(k, layer.TarOptions{Check: a.check, Place: a.place})
	if err == nil {
		err = a.choosePending()
	}
	if err == nil && k.zeros < tarBlock {
		err = fmt.Errorf("%w: the archive has no end mark", io.ErrUnexpectedEOF)
	}
	if err == nil {
		// The checksums of compressor and server are at the very end.
		err = drain(b, source)
	}
	if err != nil {
		return nil, err
	}
	return a.context(t)
}

func drain(readers ...io.Reader) error {
	for _, r := range readers {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
	}
	return nil
}

// context is the view on what was read.
func (a *archive) context(t *tree.Tree) (*Context, error) {
	c := &Context{name: a.name, fixed: t, closer: a.spool.Close, spooled: a}
	if a.opts.Sub == "" {
		return c, nil
	}
	if err := c.enter(a.opts.Sub); err != nil {
		return nil, err
	}
	return c, nil
}

// single makes a context of a Dockerfile that comes alone.
func (a *archive) single(r io.Reader) (*Context, error) {
	data, err := io.ReadAll(io.LimitReader(r, fileLimit+1))
	if err != nil {
		return nil, err
	}
	switch {
	case len(data) == 0:
		return nil, fmt.Errorf("%w: it is empty", io.ErrUnexpectedEOF)
	case len(data) > fileLimit, !utf8.Valid(data), bytes.IndexByte(data, 0) >= 0:
		return nil, errors.New("neither a tar archive, plain or compressed with gzip, zstd, xz or bzip2, nor a Dockerfile")
	case bytes.HasPrefix(bytes.TrimLeft(data, "\ufeff \t\r\n"), []byte("<")):
		return nil, errors.New("a web page, and neither an archive nor a Dockerfile: the address of a repository ends in .git, and a server that wants a login may answer with the page for it")
	case a.opts.Sub != "":
		return nil, errors.New("it is a single Dockerfile, which has no directory " + strconv.Quote(a.opts.Sub))
	}
	file := tree.NewFile(tree.Meta{Mode: 0o644}, int64(len(data)), tree.Bytes(data))
	t := tree.FromRoot(tree.NewDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: "Dockerfile", Inode: file}))
	return &Context{name: a.name, fixed: t, single: &Dockerfile{Name: "Dockerfile", Data: data}, closer: func() error { return nil }}, nil
}

// check refuses what no honest archive holds, and makes the rest as every context is: owned by 0:0, without attributes.
func (a *archive) check(h *tar.Header) error {
	for part := range strings.SplitSeq(h.Name, "/") {
		if part == ".." {
			return errors.New("a name that leads out of the context")
		}
	}
	if h.Typeflag == tar.TypeLink {
		for part := range strings.SplitSeq(h.Linkname, "/") {
			if part == ".." {
				return errors.New("a link to what lies outside of the context")
			}
		}
	}
	h.Uid, h.Gid = 0, 0
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			delete(h.PAXRecords, k)
		}
	}
	name, below := below(path.Clean("/"+h.Name), path.Clean("/"+a.opts.Sub))
	if a.current = ""; below {
		a.current = name
	}
	return a.choosePending()
}

// below returns a path relative to a directory that it lies in; both are clean and absolute.
func below(p, dir string) (string, bool) {
	if dir == "/" {
		return strings.TrimPrefix(p, "/"), true
	}
	return strings.CutPrefix(p, dir+"/")
}

// place notes where a content is and decides whether it is kept.
func (a *archive) place(off, size int64) tree.Content {
	p := &piece{from: a, name: a.current, off: off, size: size}
	a.pieces = append(a.pieces, p)
	p.have = a.keeps(p)
	return p
}

func (a *archive) keeps(p *piece) bool {
	switch {
	case a.input.Again == nil, a.opts.Select == nil:
		return true
	case p.name == "": // not below Sub
		return false
	case p.size <= fileLimit && a.isDockerfile(p.name):
		if a.want == nil {
			a.found = p
		}
		return true
	case p.size <= fileLimit && strings.HasSuffix(p.name, ".dockerignore"):
		return true
	case a.want != nil:
		return a.want(p.name)
	case a.early+p.size <= provisional:
		a.early += p.size
		return true
	}
	return false
}

func (a *archive) isDockerfile(name string) bool {
	return a.opts.Given == nil && name == strings.TrimPrefix(path.Clean("/"+a.opts.Dockerfile), "/")
}

// choosePending asks for a selection once the Dockerfile was read, which is when the next header is, or the end.
func (a *archive) choosePending() error {
	p := a.found
	if p == nil || a.want != nil {
		return nil
	}
	a.found = nil
	data := make([]byte, p.size)
	if _, err := a.spool.ReadAt(data, p.off); err != nil {
		return err
	}
	return a.choose(&Dockerfile{Name: path.Base(p.name), Data: data})
}

// choose asks for the selection, and gives back the room of what was kept in vain.
func (a *archive) choose(d *Dockerfile) error {
	if a.opts.Select == nil || a.input.Again == nil {
		return nil
	}
	if a.want, a.err = a.opts.Select(d); a.err != nil {
		return a.err
	}
	for _, p := range a.pieces {
		if !p.have || p.name != "" && a.want(p.name) || a.isDockerfile(p.name) || strings.HasSuffix(p.name, ".dockerignore") {
			continue
		}
		p.have = false
		// A file system that cannot do it only keeps more than it must.
		_ = unix.Fallocate(int(a.spool.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, p.off, p.size)
	}
	return nil
}

// Open implements tree.Content. What was not kept is read a second time, with all else that the build may need.
func (p *piece) Open() (io.ReadCloser, error) {
	f, off, err := p.FileRange()
	if err != nil {
		return nil, fmt.Errorf("build context: %s: %w", p.name, err)
	}
	return io.NopCloser(io.NewSectionReader(f, off, p.size)), nil
}

// FileRange gives the file and the place in it, so that the kernel can copy the bytes. The file is not the caller's to close.
func (p *piece) FileRange() (*os.File, int64, error) {
	a := p.from
	a.mu.Lock()
	defer a.mu.Unlock()
	if !p.have {
		if err := a.fill(p); err != nil {
			return nil, 0, err
		}
	}
	return a.spool, p.off, nil
}

// fill reads the archive again: for one file and what the selection names the first time, for everything the second time, for
// then links lead to more than the selection knew.
func (a *archive) fill(asked *piece) error {
	all := a.filled
	a.filled = true
	if err := a.reread(func(p *piece) bool {
		return p == asked || all || a.want != nil && p.name != "" && a.want(p.name)
	}); err != nil {
		return fmt.Errorf("%w: %w", ErrAgain, err)
	}
	return nil
}

// reread reads the archive and keeps the pieces that are wanted.
func (a *archive) reread(wanted func(*piece) bool) error {
	r, err := a.input.Again()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	z, err := layer.Decompress(layer.Until(a.ctx, r))
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }()
	at := int64(0)
	for _, p := range a.pieces {
		if p.have || !wanted(p) {
			continue
		}
		if _, err := io.CopyN(io.Discard, z, p.off-at); err != nil {
			return cut(err)
		}
		if _, err := io.CopyN(io.NewOffsetWriter(a.spool, p.off), z, p.size); err != nil {
			return cut(err)
		}
		at = p.off + p.size
		p.have = true
		a.Written += p.size
	}
	return nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// tarBlock is what everything in a tar file is padded to.
const tarBlock = 512

// isTar looks at the first block: a header with its checksum, or the end mark of an archive of nothing.
func isTar(b []byte) bool {
	if len(b) < tarBlock {
		return false
	}
	sum, zero := int64(8*' '), true
	for i, c := range b[:tarBlock] {
		zero = zero && c == 0
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	want, err := strconv.ParseInt(strings.Trim(string(b[148:156]), " \x00"), 8, 64)
	return zero || err == nil && want == sum
}

// keeper passes a tar file on and keeps what of it is wanted.
type keeper struct {
	r    io.Reader
	a    *archive
	n    int64
	next int // the first piece that may not have passed by
	// zeros is how many zero bytes came last.
	zeros int64
}

// Read implements io.Reader.
func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	at := k.n
	k.n += int64(n)
	for k.next < len(k.a.pieces) {
		q := k.a.pieces[k.next]
		from, to := max(q.off, at), min(q.off+q.size, k.n)
		if from < to {
			if !q.have {
				k.a.Passed += to - from
			} else if _, werr := k.a.spool.WriteAt(p[from-at:to-at], from); werr != nil {
				return 0, werr
			} else {
				k.a.Written += to - from
			}
		}
		if q.off+q.size > k.n {
			break
		}
		k.next++
	}
	if tail := int64(n - len(bytes.TrimRight(p[:n], "\x00"))); tail == int64(n) {
		k.zeros += tail
	} else {
		k.zeros = tail
	}
	return n, err
}

// counter counts what a decompressor was given.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// bounded stops what a little compressed data would become.
type bounded struct {
	r   io.Reader
	in  *counter
	out int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.out += int64(n); b.out > ratioFloor && b.out/maxRatio > b.in.n {
		return 0, fmt.Errorf("it expands to more than %d times its size, and to more than the %d bytes that are always allowed", maxRatio, ratioFloor)
	}
	return n, err
}

// failing remembers the error of a source, which explains what a decompressor or a tar reader makes of it.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
