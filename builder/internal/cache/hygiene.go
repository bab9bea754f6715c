// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// orphanAge is the age at which a blob that no record refers to is nobody's: a build stores its layers first and the records at its end.
const orphanAge = 24 * time.Hour

// Tagged is a tag and what is under it.
type Tagged struct {
	Tag string
	Set *Set
	// Digest is that of the manifest.
	Digest v1.Hash
	// Err is why the Set cannot be read; it is nil then.
	Err error
}

// IsRecords tells whether a tag is one of ours that has records.
func IsRecords(tag string) bool { return strings.HasPrefix(tag, tagPrefix) }

// ListRegistry reads all Sets of a repository whose tags are given.
func ListRegistry(ctx context.Context, client *registry.Client, repo string, tags []string) ([]Tagged, error) {
	var out []Tagged
	for _, tag := range tags {
		if !IsRecords(tag) {
			continue
		}
		a, err := client.Artifact(ctx, repo+":"+tag)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		t := Tagged{Tag: tag, Err: err}
		switch {
		case err == nil && a == nil:
			continue // removed meanwhile
		case err != nil && !damaged(err):
			return nil, err
		case err == nil:
			t.Digest = a.Digest
			if t.Set, t.Err = decode(a.Config); a.Manifest.Config.MediaType != recordsType {
				t.Set, t.Err = nil, errors.New("it is no cache of ours")
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// ListLayout reads all Sets of a directory.
func ListLayout(s *store.Shared) ([]Tagged, error) {
	idx, err := s.Index()
	if err != nil {
		return nil, err
	}
	r := &layoutRepository{s}
	var out []Tagged
	for _, d := range idx.Manifests {
		if tag := d.Annotations[refAnnotation]; IsRecords(tag) {
			t := Tagged{Tag: tag, Digest: d.Digest}
			t.Set, t.Err = r.set(d)
			out = append(out, t)
		}
	}
	return out, nil
}

// Since is a Set without what is older, and how many records that leaves out.
func (s *Set) Since(oldest time.Time) (*Set, int) {
	return s.without(func(r Record) bool { return r.Created.Before(oldest) })
}

// without leaves records out; the indexes of a base are of no use when it has none.
func (s *Set) without(drop func(Record) bool) (*Set, int) {
	out := &Set{About: s.About, Records: slices.DeleteFunc(slices.Clone(s.Records), drop), Bases: s.Bases}
	if len(out.Records) == 0 {
		out.Bases = nil
	}
	return out, len(s.Records) - len(out.Records)
}

// Empty tells whether nothing is in the Set.
func (s *Set) Empty() bool { return len(s.Records)+len(s.Bases) == 0 }

// Blobs are the layers and layer indexes that a Set refers to, each once.
func (s *Set) Blobs() []v1.Descriptor { return s.blobs() }

// Rewrite replaces the Set of a tag in a registry. What a build adds in the same instant may be lost.
func Rewrite(ctx context.Context, client *registry.Client, repo, tag string, s *Set) error {
	config, manifest, err := s.files()
	if err != nil {
		return err
	}
	return client.PushArtifact(ctx, repo+":"+tag, config, manifest)
}

// PruneOptions say what of a directory goes.
type PruneOptions struct {
	store.Limits
	// Oldest is before when records are too old.
	Oldest time.Time
	// Thorough reads the whole index.json even where nothing goes. Orphans removes blobs that nothing refers to: not where base images
	// are kept, whose layers nothing refers to.
	Thorough, Orphans bool
	Now               time.Time
}

// Pruned is what was removed.
type Pruned struct {
	Records, Tags, Items int
	Bytes                int64
	// Busy are those that a build had open.
	Busy int
}

// Prune removes from a directory what is too old, and what was not used for longest until the rest is within the limits. The index
// goes first: who reads it finds everything that it names, or is told that it is gone.
func Prune(s *store.Shared, o PruneOptions) (p Pruned, err error) {
	items, err := s.Items(o.Thorough)
	if err != nil {
		return p, err
	}
	victims := store.Over(items, o.Limits, o.Now)
	going := map[string]bool{}
	for _, v := range victims {
		if v.Kind == store.KindBlob {
			going[v.Name] = true
		}
	}
	if len(going) == 0 && !o.Thorough {
		p.remove(victims)
		return p, nil
	}
	named := map[string]bool{}
	if err := s.Update(func(idx *v1.IndexManifest) error {
		return (&pruner{s: s, r: &layoutRepository{s}, o: o, going: going, named: named, p: &p}).index(idx)
	}); err != nil {
		return p, err
	}
	victims = slices.DeleteFunc(victims, func(i store.Item) bool { return named[i.Name] })
	if o.Orphans {
		for _, i := range items {
			if i.Kind == store.KindBlob && !named[i.Name] && !going[i.Name] && o.Now.Sub(i.Used) > orphanAge {
				victims = append(victims, i)
			}
		}
	}
	p.remove(victims)
	return p, nil
}

func (p *Pruned) remove(items []store.Item) {
	for _, i := range items {
		switch err := i.Remove(); {
		case err == nil:
			p.Items++
			p.Bytes += i.Size
		case errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrMaking):
			p.Busy++
		}
	}
}

// pruner goes through an index.json.
type pruner struct {
	s            *store.Shared
	r            *layoutRepository
	o            PruneOptions
	going, named map[string]bool
	p            *Pruned
}

func (w *pruner) index(idx *v1.IndexManifest) error {
	kept := idx.Manifests[:0:0]
	for _, d := range idx.Manifests {
		entry, err := w.entry(d)
		if err != nil {
			return err
		}
		if entry == nil {
			w.p.Tags++
			continue
		}
		kept = append(kept, *entry)
	}
	idx.Manifests = kept
	return nil
}

// entry is what becomes of an entry; nil if it goes.
func (w *pruner) entry(d v1.Descriptor) (*v1.Descriptor, error) {
	if !IsRecords(d.Annotations[refAnnotation]) {
		return w.image(d), nil
	}
	old, err := w.r.set(d)
	if err != nil {
		return nil, nil //nolint:nilerr // of what cannot be read nothing is left
	}
	set, dropped := old.without(func(r Record) bool {
		return r.Created.Before(w.o.Oldest) || !w.stays(r.Layer) || r.Index != nil && !w.stays(*r.Index)
	})
	bases := len(set.Bases)
	set.Bases = slices.DeleteFunc(slices.Clone(set.Bases), func(b Base) bool { return !w.stays(b.Index) })
	w.p.Records += dropped
	if set.Empty() {
		return nil, nil
	}
	if dropped > 0 || bases != len(set.Bases) || bases != len(old.Bases) || w.going[d.Digest.String()] {
		if d, err = w.r.write(d.Annotations[refAnnotation], set); err != nil {
			return nil, err
		}
	}
	m, err := w.manifest(d)
	if err != nil {
		return nil, err
	}
	w.keep(d, m)
	return &d, nil
}

// image keeps the entry of an image whose blobs are all there.
func (w *pruner) image(d v1.Descriptor) *v1.Descriptor {
	m, err := w.manifest(d)
	if err != nil || !w.stays(d) || !w.stays(m.Config) {
		return nil
	}
	for _, l := range m.Layers {
		if !w.stays(l) {
			return nil
		}
	}
	w.keep(d, m)
	return &d
}

func (w *pruner) manifest(d v1.Descriptor) (*v1.Manifest, error) {
	raw, err := os.ReadFile(w.s.BlobPath(d.Digest)) // which is no use of it
	if err != nil {
		return nil, err
	}
	return v1.ParseManifest(bytes.NewReader(raw))
}

// keep notes that blobs are referred to.
func (w *pruner) keep(d v1.Descriptor, m *v1.Manifest) {
	for _, b := range append([]v1.Descriptor{d, m.Config}, m.Layers...) {
		w.named[b.Digest.String()] = true
		delete(w.going, b.Digest.String())
	}
}

// stays tells whether a blob is there and will be.
func (w *pruner) stays(d v1.Descriptor) bool {
	if w.going[d.Digest.String()] {
		return false
	}
	_, err := os.Stat(w.s.BlobPath(d.Digest))
	return !errors.Is(err, fs.ErrNotExist)
}
