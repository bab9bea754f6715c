// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// with makes a base of a format's layer on top of busybox. Its files are called as in the Dockerfiles of testdata/cases/bases.txtar.
func with(format func(headers ...tar.Header) (v1.Layer, error)) func(v1.Image) (v1.Image, error) {
	return func(busybox v1.Image) (v1.Image, error) {
		l, err := format(
			tar.Header{Name: "f/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "f/file", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 3, Gid: 4},
			tar.Header{Name: "f/link", Typeflag: tar.TypeSymlink, Linkname: "file", Mode: 0o777}, tar.Header{Name: "f/other", Typeflag: tar.TypeLink, Linkname: "f/file"},
			tar.Header{Name: "f/xattr", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}})
		if err != nil {
			return nil, err
		}
		return mutate.AppendLayers(busybox, l)
	}
}

// pieces are the bytes of a tar file, cut before each entry and before its end; a regular file's content is its name.
func pieces(headers ...tar.Header) ([][]byte, error) {
	var all [][]byte
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	cut := func(finish func() error) error {
		if err := finish(); err != nil {
			return err
		}
		all = append(all, bytes.Clone(b.Bytes()))
		b.Reset()
		return nil
	}
	for _, h := range headers {
		h.ModTime = at
		var content []byte
		if h.Typeflag == tar.TypeReg {
			content = []byte(h.Name)
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
		if err := cut(w.Flush); err != nil {
			return nil, err
		}
	}
	return all, cut(w.Close)
}

// layer makes an ordinary layer, with gzip.
func layer(headers ...tar.Header) (v1.Layer, error) {
	all, err := pieces(headers...)
	if err != nil {
		return nil, err
	}
	data := bytes.Join(all, nil)
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, tarball.WithMediaType(types.OCILayer))
}

// plain is not compressed.
func plain(headers ...tar.Header) (v1.Layer, error) {
	all, err := pieces(headers...)
	if err != nil {
		return nil, err
	}
	data := bytes.Join(all, nil)
	return compressed(data, data, types.OCIUncompressedLayer), nil
}

// members are two members of gzip, cut where nothing else is.
func members(headers ...tar.Header) (v1.Layer, error) {
	return halves(types.OCILayer, gzipped, headers...)
}

// frames are two frames of zstd.
func frames(headers ...tar.Header) (v1.Layer, error) {
	return halves(types.OCILayerZStd, zstandard, headers...)
}

func halves(mediaType types.MediaType, compress func([]byte) ([]byte, error), headers ...tar.Header) (v1.Layer, error) {
	all, err := pieces(headers...)
	if err != nil {
		return nil, err
	}
	data := bytes.Join(all, nil)
	var blob []byte
	for _, half := range [][]byte{data[:700], data[700:]} {
		z, err := compress(half)
		if err != nil {
			return nil, err
		}
		blob = append(blob, z...)
	}
	return compressed(blob, data, mediaType), nil
}

// tocEntry is one entry of the table of contents of estargz and of zstd:chunked.
type tocEntry struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Size     int64  `json:"size,omitempty"`
	LinkName string `json:"linkName,omitempty"`
	Mode     int64  `json:"mode"`
	UID      int    `json:"uid"`
	GID      int    `json:"gid"`
	ModTime  string `json:"modtime"`
	Digest   string `json:"digest,omitempty"`
	Offset   int64  `json:"offset"`
}

func tableOfContents(headers []tar.Header, offsets []int64) ([]byte, error) {
	kinds := map[byte]string{tar.TypeReg: "reg", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeLink: "hardlink"}
	var entries []tocEntry
	for i, h := range headers {
		e := tocEntry{
			Name: h.Name, Type: kinds[h.Typeflag], LinkName: h.Linkname, Mode: h.Mode, UID: h.Uid, GID: h.Gid,
			ModTime: at.UTC().Format("2006-01-02T15:04:05Z"), Offset: offsets[i],
		}
		if h.Typeflag == tar.TypeReg {
			e.Size, e.Digest = int64(len(h.Name)), sum([]byte(h.Name)).String()
		}
		entries = append(entries, e)
	}
	return json.Marshal(map[string]any{"version": 1, "entries": entries})
}

// estargz is a gzip member an entry, one for the table of contents, which is an entry too, and a footer: an empty member
// that says in its header where the table is.
func estargz(headers ...tar.Header) (v1.Layer, error) {
	headers = append([]tar.Header{{Name: ".no.prefetch.landmark", Typeflag: tar.TypeReg, Mode: 0o644}}, headers...)
	all, err := pieces(headers...)
	if err != nil {
		return nil, err
	}
	var blob bytes.Buffer
	var offsets []int64
	for _, piece := range all[:len(all)-1] {
		offsets = append(offsets, int64(blob.Len()))
		z, err := gzipped(piece)
		if err != nil {
			return nil, err
		}
		blob.Write(z)
	}
	toc, err := tableOfContents(headers, offsets)
	if err != nil {
		return nil, err
	}
	var last bytes.Buffer
	w := tar.NewWriter(&last)
	if err := w.WriteHeader(&tar.Header{Name: "stargz.index.json", Typeflag: tar.TypeReg, Size: int64(len(toc)), Mode: 0o444}); err != nil {
		return nil, err
	}
	if _, err := w.Write(toc); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	z, err := gzipped(last.Bytes())
	if err != nil {
		return nil, err
	}
	where := blob.Len()
	blob.Write(z)
	footer := gzip.NewWriter(&blob)
	footer.Extra = append([]byte{'S', 'G', 22, 0}, fmt.Sprintf("%016xSTARGZ", where)...)
	if err := footer.Close(); err != nil {
		return nil, err
	}
	return compressed(blob.Bytes(), append(bytes.Join(all[:len(all)-1], nil), last.Bytes()...), types.OCILayer), nil
}

// zstdChunked is a zstd frame an entry and then, in frames that decompressors skip, the table of contents and a footer.
func zstdChunked(headers ...tar.Header) (v1.Layer, error) {
	all, err := pieces(headers...)
	if err != nil {
		return nil, err
	}
	var blob []byte
	var offsets []int64
	for _, piece := range all {
		offsets = append(offsets, int64(len(blob)))
		z, err := zstandard(piece)
		if err != nil {
			return nil, err
		}
		blob = append(blob, z...)
	}
	toc, err := tableOfContents(headers, offsets)
	if err != nil {
		return nil, err
	}
	z, err := zstandard(toc)
	if err != nil {
		return nil, err
	}
	blob = skippable(blob, z)
	footer := make([]byte, 0, 64)
	for _, n := range []int{len(blob) - len(z), len(z), len(toc), 1, 0, 0, 0} {
		footer = binary.LittleEndian.AppendUint64(footer, uint64(n))
	}
	blob = skippable(blob, append(footer, "GNUlInUx"...))
	return compressed(blob, bytes.Join(all, nil), types.OCILayerZStd), nil
}

// skippable appends a frame that means nothing to a decompressor.
func skippable(blob, content []byte) []byte {
	const magic = 0x184D2A50
	blob = binary.LittleEndian.AppendUint32(blob, magic)
	return append(binary.LittleEndian.AppendUint32(blob, uint32(len(content))), content...)
}

func gzipped(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

func zstandard(data []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	return w.EncodeAll(data, nil), w.Close()
}

func sum(data []byte) v1.Hash {
	s := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(s[:])}
}

// compressed is a layer of which the blob and what it is uncompressed are known.
func compressed(blob, data []byte, mediaType types.MediaType) v1.Layer {
	return known{static.NewLayer(blob, mediaType), sum(data)}
}

type known struct {
	v1.Layer
	diffID v1.Hash
}

// DiffID implements v1.Layer.
func (k known) DiffID() (v1.Hash, error) { return k.diffID, nil }
