// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// whiteoutPrefix begins the name of a file that says that the rest of its name is gone.
const whiteoutPrefix = ".wh."

// Compression of the layers we make.
type Compression struct {
	// Algorithm is "gzip" or "zstd".
	Algorithm string
	// Level is gzip's 1 to 9 or zstd's 1 to 22; 0 is the default: gzip 5, which costs a quarter of
	// the standard library's 6 at nearly its size, and zstd 3.
	Level int
	// Docker asks for Docker's media types instead of OCI's; not with zstd.
	Docker bool
}

// blockSize is what one goroutine of the gzip compressor takes at a time. It is part of the layer
// format: another size gives other bytes.
const blockSize = 1 << 20

// MediaType is that of the layers made with c.
func (c Compression) MediaType() types.MediaType {
	switch {
	case c.Algorithm == "zstd":
		return types.OCILayerZStd
	case c.Docker:
		return types.DockerLayer
	default:
		return types.OCILayer
	}
}

func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	if c.Algorithm == "zstd" {
		level := zstd.SpeedDefault
		if c.Level > 0 {
			level = zstd.EncoderLevelFromZstd(c.Level)
		}
		return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true))
	}
	level := c.Level
	if level == 0 {
		level = 5
	}
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, err
	}
	return z, z.SetConcurrency(blockSize, max(2, runtime.GOMAXPROCS(0)))
}

// Write makes a layer of changes, which are in the order that tree.Diff gives, and puts it into
// the store. One pass: every content is opened and read once. An error that comes from reading a content names its path.
func Write(ctx context.Context, s *store.Store, changes []tree.Change, c Compression) (*Layer, error) {
	blob, err := s.Create()
	if err != nil {
		return nil, fmt.Errorf("new layer: %w", err)
	}
	defer blob.Abort()
	out := newMeter(blob)
	z, err := c.writer(out)
	if err != nil {
		return nil, fmt.Errorf("compressor: %w", err)
	}
	var rec *recorder
	if s.Indexes {
		rec = newRecorder(s)
		defer rec.abort()
	}
	in := newMeter(z)
	if err := writeTar(ctx, in, changes, rec); err != nil {
		_ = z.Close()
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	l := &Layer{digest: out.sum(), diffID: in.sum(), size: out.n, mediaType: c.MediaType()}
	if err := blob.Commit(l.digest); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	l.path = s.BlobPath(l.digest)
	if rec != nil {
		if l.index, err = rec.finish(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// meter counts and digests what passes through.
type meter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func newMeter(w io.Writer) *meter { return &meter{w: w, h: sha256.New()} }

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.h.Write(p[:n])
	m.n += int64(n)
	return n, err
}

func (m *meter) sum() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(m.h.Sum(nil))}
}

// writeTar writes changes as a tar file. What would make a layer differ between two machines
// is left out: user and group names, access and change times, inode numbers, fractions of seconds; the
// order is that of the changes.
func writeTar(ctx context.Context, w io.Writer, changes []tree.Change, rec *recorder) error {
	elide := func(int64) {}
	if rec != nil {
		w, elide = io.MultiWriter(w, rec), rec.elide
	}
	tw := tar.NewWriter(w)
	links := map[*tree.Inode]string{}
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := writeChange(ctx, tw, c, links, elide); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

func writeChange(ctx context.Context, tw *tar.Writer, c tree.Change, links map[*tree.Inode]string, elide func(int64)) error {
	if strings.HasPrefix(path.Base(c.Path), whiteoutPrefix) {
		return fmt.Errorf("/%s: a name that begins with %s cannot be in an image: it would remove another file", c.Path, whiteoutPrefix)
	}
	if c.Inode == nil {
		return writeHeader(tw, &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     path.Join(path.Dir(c.Path), whiteoutPrefix+path.Base(c.Path)),
			ModTime:  time.Unix(0, 0),
		})
	}
	h := header(c)
	if first, ok := links[c.Inode]; ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return writeHeader(tw, h)
	}
	if c.Inode.Shared {
		links[c.Inode] = c.Path
	}
	if err := writeHeader(tw, h); err != nil || h.Size == 0 {
		return err
	}
	if !inline(c.Path, h.Size) {
		elide(h.Size)
	}
	r, err := c.Inode.Open()
	if err != nil {
		return fmt.Errorf("read /%s: %w", c.Path, err)
	}
	if err := copyExactly(tw, Until(ctx, r), h.Size); err != nil {
		_ = r.Close()
		return fmt.Errorf("read /%s: %w", c.Path, err)
	}
	return r.Close()
}

func writeHeader(tw *tar.Writer, h *tar.Header) error {
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write layer: /%s: %w", h.Name, err)
	}
	return nil
}

func header(c tree.Change) *tar.Header {
	ino := c.Inode
	h := &tar.Header{
		Format:  tar.FormatPAX,
		Name:    c.Path,
		Mode:    int64(ino.Mode),
		Uid:     int(ino.UID),
		Gid:     int(ino.GID),
		ModTime: time.Unix(ino.MTime, 0),
	}
	switch ino.Type {
	case tree.File:
		h.Typeflag, h.Size = tar.TypeReg, ino.Size
	case tree.Dir:
		h.Typeflag, h.Name = tar.TypeDir, c.Path+"/"
	case tree.Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, ino.Link()
	case tree.CharDevice, tree.BlockDevice:
		h.Typeflag = tar.TypeChar
		if ino.Type == tree.BlockDevice {
			h.Typeflag = tar.TypeBlock
		}
		major, minor := ino.Device()
		h.Devmajor, h.Devminor = int64(major), int64(minor)
	case tree.Fifo:
		h.Typeflag = tar.TypeFifo
	}
	for _, k := range slices.Sorted(maps.Keys(ino.Xattrs)) {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+k] = ino.Xattrs[k]
	}
	return h
}

// buffers are for copying: io.Copy would make one for every file.
//
//nolint:gochecknoglobals // a pool is not state that anybody could observe
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// copyExactly copies n bytes; fewer or more are an error, for then the file changed under us.
func copyExactly(w io.Writer, r io.Reader, n int64) error {
	buf, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	// The struct hides WriterTo and ReaderFrom, which would ignore the buffer.
	done, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(r, n)}, *buf)
	if err != nil {
		return err
	}
	if done < n {
		return fmt.Errorf("the file became shorter while it was read: %d bytes of %d", done, n)
	}
	return nil
}
