// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// frozen is what is published: bytes and digests that were computed once and are
// not asked for again, so that what is sent, tagged and read back is the same.
type frozen struct {
	blobs     []v1.Layer // layers and configs, each digest once
	manifests []document // children before parents; the last is what tags point to
}

// document is a manifest or an index.
type document struct {
	raw       []byte
	digest    v1.Hash
	mediaType types.MediaType
}

func (f *frozen) root() document { return f.manifests[len(f.manifests)-1] }

// freeze takes an image or index apart and checks that it is coherent.
func freeze(t remote.Taggable) (*frozen, error) {
	f := &frozen{}
	var err error
	switch t := t.(type) {
	case v1.Image:
		err = f.addImage(t)
	case v1.ImageIndex:
		err = f.addIndex(t, 0)
	default:
		err = fmt.Errorf("%T is neither an image nor an index", t)
	}
	if err != nil {
		return nil, fmt.Errorf("preparing the image to push: %w", err)
	}
	f.blobs = distinct(f.blobs)
	return f, nil
}

// distinct keeps the first layer of each digest; they all know theirs.
func distinct(all []v1.Layer) []v1.Layer {
	var once []v1.Layer
	seen := map[v1.Hash]bool{}
	for _, l := range all {
		if d, err := l.Digest(); err == nil && !seen[d] {
			seen[d] = true
			once = append(once, l)
		}
	}
	return once
}

func (f *frozen) addImage(img v1.Image) error {
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	got, err := hashBytes("sha256", config)
	if err != nil {
		return err
	}
	if got != m.Config.Digest || int64(len(config)) != m.Config.Size {
		return integrity("the manifest names the config %s, the config is %s", m.Config.Digest, got)
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) != len(m.Layers) {
		return integrity("the manifest has %d layers, the image %d", len(m.Layers), len(layers))
	}
	for i, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		if d != m.Layers[i].Digest {
			return integrity("the manifest names layer %d %s, the image has %s", i+1, m.Layers[i].Digest, d)
		}
	}
	f.blobs = append(append(f.blobs, layers...), static.NewLayer(config, m.Config.MediaType))
	mt, err := img.MediaType()
	if err != nil {
		return err
	}
	return f.addDocument(raw, mt)
}

func (f *frozen) addIndex(idx v1.ImageIndex, depth int) error {
	if depth > 1 {
		return errors.New("an index more than two levels deep")
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range m.Manifests {
		switch {
		case d.MediaType.IsImage():
			img, err := idx.Image(d.Digest)
			if err != nil {
				return err
			}
			if err := f.addImage(img); err != nil {
				return err
			}
		case d.MediaType.IsIndex():
			child, err := idx.ImageIndex(d.Digest)
			if err != nil {
				return err
			}
			if err := f.addIndex(child, depth+1); err != nil {
				return err
			}
		default:
			return fmt.Errorf("the index has an entry of media type %q", d.MediaType)
		}
		if got := f.root().digest; got != d.Digest {
			return integrity("the index names %s, its manifest is %s", d.Digest, got)
		}
	}
	raw, err := idx.RawManifest()
	if err != nil {
		return err
	}
	mt, err := idx.MediaType()
	if err != nil {
		return err
	}
	return f.addDocument(raw, mt)
}

func (f *frozen) addDocument(raw []byte, mt types.MediaType) error {
	if len(raw) > maxManifest {
		return fmt.Errorf("the manifest is larger than %d MiB", maxManifest>>20)
	}
	digest, err := hashBytes("sha256", raw)
	if err != nil {
		return err
	}
	f.manifests = append(f.manifests, document{raw: raw, digest: digest, mediaType: mt})
	return nil
}
