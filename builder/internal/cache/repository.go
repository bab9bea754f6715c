// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// errDamaged says that a Set cannot be read, whoever tries.
var errDamaged = errors.New("the records are damaged")

// directoryPrefix begins the names of repositories that are directories.
const directoryPrefix = "oci:"

// Directory returns the directory that a repository's name stands for, and whether it is one.
func Directory(name string) (dir string, ok bool) { return strings.CutPrefix(name, directoryPrefix) }

// Repository is a place where Sets and what they refer to are kept. It is safe for concurrent use.
type Repository interface {
	// String is what people call it.
	String() string
	// Load reads the Set of a tag; nil if there is none.
	Load(ctx context.Context, tag string) (*Loaded, error)
	// Put stores a layer or a layer index; path is the file that has its bytes, which were verified.
	Put(ctx context.Context, l v1.Layer, path string) error
	// Merge adds to the Set of a tag, whose blobs are stored already.
	Merge(ctx context.Context, tag string, add *Set, oldest time.Time) error
}

// Loaded is a Set and the place that has its blobs.
type Loaded struct {
	*Set
	// Local says that the blobs are files.
	Local bool
	// Layer is a layer of the place, to be read under ctx.
	Layer func(ctx context.Context, d v1.Descriptor, diffID v1.Hash) (v1.Layer, error)
	// Blob opens a blob, whose bytes the caller verifies.
	Blob func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
	// Sound finds out whether a layer can be had from the place. Local bytes are read for that, those in a registry are not.
	Sound func(ctx context.Context, d v1.Descriptor) error
	// Drop removes a blob that is damaged, so that it is stored again when it is made again; nil where that is not for us to do.
	Drop func(d v1.Descriptor)
}

// registryRepository is a repository in a registry.
type registryRepository struct {
	client *registry.Client
	name   string
}

// InRegistry is a repository in a registry.
func InRegistry(client *registry.Client, name string) Repository {
	return &registryRepository{client, name}
}

// String implements Repository.
func (r *registryRepository) String() string { return r.name }

func (r *registryRepository) ref(tag string) string { return r.name + ":" + tag }

// Load implements Repository.
func (r *registryRepository) Load(ctx context.Context, tag string) (*Loaded, error) {
	a, err := r.client.Artifact(ctx, r.ref(tag))
	if a == nil || err != nil {
		return nil, err
	}
	if a.Manifest.Config.MediaType != recordsType {
		return nil, fmt.Errorf("%s is no cache of ours: its config is of type %q", r.ref(tag), a.Manifest.Config.MediaType)
	}
	set, err := decode(a.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", r.ref(tag), errDamaged, err)
	}
	return &Loaded{
		Set:   set,
		Layer: a.Layer,
		Blob:  a.Blob,
		Sound: func(ctx context.Context, d v1.Descriptor) error {
			there, err := a.Has(ctx, d.Digest)
			if err == nil && !there {
				err = fmt.Errorf("%s does not have it any more", r.name)
			}
			return err
		},
	}, nil
}

// Put implements Repository.
func (r *registryRepository) Put(ctx context.Context, l v1.Layer, _ string) error {
	return r.client.UploadCache(ctx, r.name, l)
}

// Merge implements Repository. What another build writes in the same instant may be lost; that is a miss of a later build, no
// more. What is damaged is replaced; a registry that is not to be had keeps what it has.
func (r *registryRepository) Merge(ctx context.Context, tag string, add *Set, oldest time.Time) error {
	old := &Set{}
	l, err := r.Load(ctx, tag)
	if err != nil && !damaged(err) {
		return err
	}
	if l != nil {
		old = l.Set
	}
	config, manifest, err := old.merge(add, oldest).files()
	if err != nil {
		return err
	}
	return r.client.PushArtifact(ctx, r.ref(tag), config, manifest)
}

// damaged tells whether an error of Load says that nothing can be made of what is there.
func damaged(err error) bool {
	var trouble *registry.Error
	if errors.As(err, &trouble) {
		return trouble.Class == registry.Integrity || trouble.Class == registry.Unsupported || trouble.Class == registry.Refused
	}
	return errors.Is(err, errDamaged)
}

// files are the blob of a Set and its manifest.
func (s *Set) files() (config v1.Layer, manifest []byte, err error) {
	blob, err := s.encode()
	if err != nil {
		return nil, nil, err
	}
	config = static.NewLayer(blob, recordsType)
	d, err := partial.Descriptor(config)
	if err != nil {
		return nil, nil, err
	}
	if len(blob) <= maxInline {
		d.Data = blob
	}
	manifest, err = s.manifest(*d)
	return config, manifest, err
}

// maxInline bounds a Set that the manifest has in itself too, so that a build reads both with one request. Registries bound
// manifests to 4 MB.
const maxInline = 256 << 10

// refAnnotation is the name of an entry in an OCI layout.
const refAnnotation = "org.opencontainers.image.ref.name"

// layoutRepository is an OCI layout on disk.
type layoutRepository struct{ *store.Shared }

// InLayout is a layout on disk.
func InLayout(s *store.Shared) Repository { return &layoutRepository{s} }

// String implements Repository.
func (r *layoutRepository) String() string { return directoryPrefix + r.Dir() }

// Load implements Repository.
func (r *layoutRepository) Load(_ context.Context, tag string) (*Loaded, error) {
	idx, err := r.Index()
	if err != nil {
		return nil, err
	}
	for _, d := range idx.Manifests {
		if d.Annotations[refAnnotation] != tag {
			continue
		}
		set, err := r.set(d)
		if err != nil {
			return nil, err
		}
		return &Loaded{
			Set:   set,
			Local: true,
			Layer: func(_ context.Context, d v1.Descriptor, diffID v1.Hash) (v1.Layer, error) {
				return partial.CompressedToLayer(&localLayer{r.Shared, d, diffID})
			},
			Blob: func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) { return r.Open(d.Digest) },
			Sound: func(_ context.Context, d v1.Descriptor) error {
				err := r.Verify(d)
				if err != nil {
					r.drop(d)
				}
				return err
			},
			Drop: r.drop,
		}, nil
	}
	return nil, nil //nolint:nilnil // as Load says
}

func (r *layoutRepository) drop(d v1.Descriptor) { _ = r.Remove(d.Digest) } // it may be gone, or not ours to remove

func (r *layoutRepository) set(d v1.Descriptor) (*Set, error) {
	raw, err := r.ReadAll(d, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if m.Config.MediaType != recordsType {
		return nil, fmt.Errorf("its config is of type %q", m.Config.MediaType)
	}
	blob, err := r.ReadAll(m.Config, maxSetBytes)
	if err != nil {
		return nil, err
	}
	return decode(blob)
}

// maxManifest bounds a manifest of ours on disk.
const maxManifest = 16 << 20

// Put implements Repository.
func (r *layoutRepository) Put(_ context.Context, l v1.Layer, path string) error {
	d, err := partial.Descriptor(l)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(r.Shared.Put(*d, f), f.Close())
}

// Merge implements Repository. The lock of the layout is held meanwhile, so that nothing gets lost.
func (r *layoutRepository) Merge(_ context.Context, tag string, add *Set, oldest time.Time) error {
	return r.Update(func(idx *v1.IndexManifest) error {
		old := &Set{}
		kept := idx.Manifests[:0:0]
		for _, d := range idx.Manifests {
			if d.Annotations[refAnnotation] != tag {
				kept = append(kept, d)
				continue
			}
			if s, err := r.set(d); err == nil {
				old = s
			}
		}
		entry, err := r.write(tag, old.merge(add, oldest))
		if err != nil {
			return err
		}
		idx.Manifests = append(kept, entry)
		return nil
	})
}

// write stores a Set and returns its entry for index.json.
func (r *layoutRepository) write(tag string, s *Set) (v1.Descriptor, error) {
	config, manifest, err := s.files()
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := partial.Descriptor(config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	blob, err := config.Compressed()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := r.Shared.Put(*d, blob); err != nil {
		return v1.Descriptor{}, err
	}
	hash, size, err := v1.SHA256(bytes.NewReader(manifest))
	if err != nil {
		return v1.Descriptor{}, err
	}
	entry := v1.Descriptor{
		MediaType: types.OCIManifestSchema1, Digest: hash, Size: size,
		Annotations: map[string]string{refAnnotation: tag},
	}
	return entry, r.Shared.Put(entry, bytes.NewReader(manifest))
}

// localLayer is a layer in a layout.
type localLayer struct {
	in     *store.Shared
	desc   v1.Descriptor
	diffID v1.Hash
}

func (l *localLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *localLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *localLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *localLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l *localLayer) Compressed() (io.ReadCloser, error)  { return l.in.Open(l.desc.Digest) }
func (l *localLayer) Descriptor() (*v1.Descriptor, error) { d := l.desc; return &d, nil }
