// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Elsewhere finds the image of a platform among blobs that are in no registry, such as those of an OCI layout: top is the
// digest of its manifest or of an index, open gives a blob. Manifest and config are verified and refused as by
// [Client.Resolve]; layers are not touched, and whoever reads them verifies them. ref is the name for errors, which are of
// type [*Error], but for a blob that is not there: that is open's.
func Elsewhere(ref string, top v1.Hash, platform v1.Platform, open func(v1.Hash) (io.ReadCloser, error)) (v1.Image, error) {
	img, err := elsewhere(top, normalise(platform), open)
	if err == nil || classOf(err) == 0 {
		return img, err
	}
	return nil, &Error{Class: classOf(err), Op: "read", Ref: ref, Reason: err.Error(), Err: err}
}

func elsewhere(top v1.Hash, platform v1.Platform, open func(v1.Hash) (io.ReadCloser, error)) (v1.Image, error) {
	read := func(d v1.Descriptor, limit int64, what string) ([]byte, error) {
		r, err := open(d.Digest)
		if err != nil {
			return nil, err
		}
		raw, err := readLimited(r, limit, what)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		if d.Size < 0 {
			d.Size = int64(len(raw)) // not known
		}
		return raw, checkBytes(what, raw, d)
	}
	raw, err := read(v1.Descriptor{Digest: top, Size: -1}, maxManifest, "manifest")
	if err != nil {
		return nil, err
	}
	if err := refuseAmbiguous(raw); err != nil {
		return nil, err
	}
	mediaType := typeElsewhere(raw)
	if mediaType.IsIndex() {
		desc, err := chooseFrom(raw, platform)
		if err != nil {
			return nil, err
		}
		if raw, err = read(desc, maxManifest, "manifest"); err != nil {
			return nil, err
		}
		if err := refuseAmbiguous(raw); err != nil {
			return nil, err
		}
		mediaType = typeElsewhere(raw)
	}
	manifest, config, rawConfig, err := checkImage(raw, mediaType, func(d v1.Descriptor) ([]byte, error) {
		if d.Size < 0 {
			return nil, unsupported("the image config has a negative size")
		}
		return read(d, maxConfig, "image config")
	})
	if err != nil {
		return nil, err
	}
	core := elsewhereCore{imageCore{raw: raw, config: rawConfig, mediaType: mediaType}, map[v1.Hash]fileLayer{}}
	for i, d := range manifest.Layers {
		core.layers[d.Digest] = fileLayer{d, config.RootFS.DiffIDs[i], open}
	}
	return partial.CompressedToImage(core)
}

// typeElsewhere is the media type of a manifest without a registry's header: what it says itself, or what it looks like.
func typeElsewhere(raw []byte) types.MediaType {
	if t := mediaTypeOf(raw, ""); t != "" {
		return t
	}
	var m struct {
		Manifests json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(raw, &m) == nil && m.Manifests != nil {
		return types.OCIImageIndex
	}
	return types.OCIManifestSchema1
}

type elsewhereCore struct {
	imageCore
	layers map[v1.Hash]fileLayer
}

// LayerByDigest returns the layer with a digest.
func (c elsewhereCore) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	l, ok := c.layers[h]
	if !ok {
		return nil, fmt.Errorf("no layer %s in the image", h)
	}
	return l, nil
}

// fileLayer is a layer among the blobs.
type fileLayer struct {
	desc   v1.Descriptor
	diffID v1.Hash
	open   func(v1.Hash) (io.ReadCloser, error)
}

func (l fileLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l fileLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l fileLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l fileLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l fileLayer) Descriptor() (*v1.Descriptor, error) { d := l.desc; return &d, nil }
func (l fileLayer) Compressed() (io.ReadCloser, error)  { return l.open(l.desc.Digest) }
