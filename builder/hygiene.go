// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// Inventory is what caches hold. Its JSON is what mode cache-list prints.
type Inventory struct {
	// Repositories are the places of the layer cache, Directory is the base cache, nil for none.
	Repositories []RepositoryInventory `json:"repositories"`
	Directory    *DirectoryInventory   `json:"directory,omitempty"`
}

// RepositoryInventory is one place of the layer cache.
type RepositoryInventory struct {
	// Name is a repository, or oci: and a directory.
	Name string         `json:"name"`
	Tags []TagInventory `json:"tags"`
	// Mounts are cache mounts that were stored there.
	Mounts []MountInventory `json:"cacheMounts,omitempty"`
	// Records counts the layers, Size is the bytes of all blobs that they and the mounts refer to.
	Records int   `json:"records"`
	Size    int64 `json:"size"`
}

// TagInventory are the records of stages that begin with one base.
type TagInventory struct {
	Tag string `json:"tag"`
	// Base is the base and the platform, "" where the build that wrote the tag did not say.
	Base    string            `json:"base,omitempty"`
	Records []RecordInventory `json:"records"`
	Size    int64             `json:"size"`
	// Error is why the records cannot be read.
	Error string `json:"error,omitempty"`
}

// RecordInventory is one layer that is kept.
type RecordInventory struct {
	Instruction string    `json:"instruction"`
	Layer       string    `json:"layer"`
	Size        int64     `json:"size"`
	Created     time.Time `json:"created"`
}

// MountInventory is a cache mount in a registry.
type MountInventory struct {
	Tag     string    `json:"tag"`
	ID      string    `json:"id"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

// DirectoryInventory is the directory of the base cache.
type DirectoryInventory struct {
	Name   string           `json:"name"`
	Images []ImageInventory `json:"images"`
	Items  []ItemInventory  `json:"items"`
	Size   int64            `json:"size"`
}

// ImageInventory is an image that mode warm has fetched.
type ImageInventory struct {
	Name     string `json:"name"`
	Digest   string `json:"digest"`
	Platform string `json:"platform,omitempty"`
	Fetched  string `json:"fetched,omitempty"`
}

// ItemInventory is something in the directory that can be removed by itself.
type ItemInventory struct {
	Kind  string    `json:"kind"`
	Name  string    `json:"name"`
	About string    `json:"about,omitempty"`
	Size  int64     `json:"size"`
	Used  time.Time `json:"used"`
}

// List tells what the caches hold, and says it to people in the log. A place that cannot be read is an error, after the others were read.
func (b *Builder) List(ctx context.Context, o CacheOptions) (*Inventory, error) {
	inv := &Inventory{Repositories: []RepositoryInventory{}}
	var errs []error
	for _, name := range o.Repos {
		repo, err := b.listRepository(ctx, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		inv.Repositories = append(inv.Repositories, *repo)
		b.sayRepository(repo)
	}
	if o.Dir != "" {
		dir, err := listDirectory(o.Dir)
		if err != nil {
			errs = append(errs, err)
		} else {
			inv.Directory = dir
			b.sayDirectory(dir)
		}
	}
	return inv, errors.Join(errs...)
}

func (b *Builder) listRepository(ctx context.Context, name string) (*RepositoryInventory, error) {
	out := &RepositoryInventory{Name: name, Tags: []TagInventory{}}
	var sets []cache.Tagged
	if dir, local := cache.Directory(name); local {
		s, err := store.ReadShared(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil // nothing was kept yet
		}
		if err != nil {
			return nil, &environmentError{err}
		}
		if sets, err = cache.ListLayout(s); err != nil {
			return nil, &environmentError{err}
		}
	} else {
		tags, err := b.Registry.Tags(ctx, name)
		if err != nil {
			return nil, err
		}
		if sets, err = cache.ListRegistry(ctx, b.Registry, name, tags); err != nil {
			return nil, err
		}
		mounts, err := b.remoteMounts(ctx, name, tags)
		if err != nil {
			return nil, err
		}
		for _, m := range mounts {
			out.Mounts = append(out.Mounts, m.MountInventory)
			out.Size += m.blob
		}
	}
	counted := map[string]bool{}
	for _, t := range sets {
		out.add(t, counted)
	}
	return out, nil
}

// add counts a tag; a blob that several refer to counts once.
func (r *RepositoryInventory) add(t cache.Tagged, counted map[string]bool) {
	tag := TagInventory{Tag: t.Tag, Records: []RecordInventory{}}
	if t.Err != nil {
		tag.Error = t.Err.Error()
		r.Tags = append(r.Tags, tag)
		return
	}
	tag.Base = t.Set.About
	for _, rec := range t.Set.Records {
		tag.Records = append(tag.Records, RecordInventory{rec.Text, rec.Layer.Digest.String(), rec.Layer.Size, rec.Created})
	}
	for _, d := range t.Set.Blobs() {
		tag.Size += d.Size
		if !counted[d.Digest.Hex] {
			counted[d.Digest.Hex] = true
			r.Size += d.Size
		}
	}
	r.Records += len(tag.Records)
	r.Tags = append(r.Tags, tag)
}

func listDirectory(dir string) (*DirectoryInventory, error) {
	out := &DirectoryInventory{Name: dir, Images: []ImageInventory{}, Items: []ItemInventory{}}
	s, err := store.ReadShared(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil // nothing was kept yet
	}
	if err != nil {
		return nil, &environmentError{fmt.Errorf("KANIKO_CACHE_DIR: %w", err)}
	}
	items, err := s.Items(true)
	if err != nil {
		return nil, &environmentError{fmt.Errorf("KANIKO_CACHE_DIR: %w", err)}
	}
	idx, err := s.Index()
	if err != nil {
		return nil, &environmentError{fmt.Errorf("KANIKO_CACHE_DIR: %w", err)}
	}
	for _, d := range idx.Manifests {
		if cache.IsRecords(d.Annotations[refNameAnnotation]) {
			continue
		}
		i := ImageInventory{Name: d.Annotations[refNameAnnotation], Digest: d.Digest.String(), Fetched: d.Annotations[warmedAnnotation]}
		if d.Platform != nil {
			i.Platform = d.Platform.String()
		}
		out.Images = append(out.Images, i)
	}
	for _, i := range items {
		out.Items = append(out.Items, ItemInventory{i.Kind, i.Name, i.About, i.Size, i.Used.UTC().Truncate(time.Second)})
		out.Size += i.Size
	}
	return out, nil
}

// sayRepository prints a table.
func (b *Builder) sayRepository(r *RepositoryInventory) {
	b.Log.Info(fmt.Sprintf("%s: %d layers under %d tags, %d cache mounts, %s", r.Name, r.Records, len(r.Tags), len(r.Mounts), progress.Bytes(r.Size)))
	for _, t := range r.Tags {
		if t.Error != "" {
			b.Log.Warn(fmt.Sprintf("  %s cannot be read: %s", t.Tag, t.Error))
			continue
		}
		b.Log.Info(fmt.Sprintf("  %s  %s  %s", t.Tag, progress.Bytes(t.Size), t.Base))
		for _, rec := range t.Records {
			b.Log.Info(fmt.Sprintf("    %s  %10s  %s", rec.Created.Format(time.DateTime), progress.Bytes(rec.Size), rec.Instruction))
		}
	}
	for _, m := range r.Mounts {
		b.Log.Info(fmt.Sprintf("  %s  %s  %10s  cache mount %s", m.Tag, m.Created.Format(time.DateTime), progress.Bytes(m.Size), m.ID))
	}
}

func (b *Builder) sayDirectory(d *DirectoryInventory) {
	b.Log.Info(fmt.Sprintf("%s: %d images, %s", d.Name, len(d.Images), progress.Bytes(d.Size)))
	for _, i := range d.Images {
		b.Log.Info(fmt.Sprintf("  image %s, %s, fetched %s", i.Name, i.Platform, i.Fetched))
	}
	for _, i := range d.Items {
		b.Log.Info(fmt.Sprintf("  %s  %10s  %s", i.Used.Format(time.DateTime), progress.Bytes(i.Size), strings.TrimSpace(i.Kind+" "+i.label())))
	}
}

func (i ItemInventory) label() string {
	if i.About != "" {
		return i.About
	}
	return i.Name
}

// Prune removes from the caches what is older than the time limits, and from directories what was not used for longest until the rest is
// within the size. A place that cannot be pruned is an error, after the others were.
func (b *Builder) Prune(ctx context.Context, o CacheOptions) error {
	var errs []error
	for _, name := range o.Repos {
		dir, local := cache.Directory(name)
		switch {
		case !local:
			errs = append(errs, b.pruneRegistry(ctx, name, o))
		case !o.alsoBases(dir):
			errs = append(errs, b.pruneDirectory(dir, o, true))
		}
	}
	if o.Dir != "" {
		errs = append(errs, b.pruneDirectory(o.Dir, o, true))
	}
	return errors.Join(errs...)
}

// alsoBases tells whether a directory of the layer cache is that of the base cache, too.
func (o CacheOptions) alsoBases(dir string) bool { return filepath.Clean(dir) == filepath.Clean(o.Dir) }

// oldest is the time before which records do not count; the zero Time if there is none.
func (o CacheOptions) oldest(now time.Time) time.Time {
	if o.TTL == 0 {
		return time.Time{}
	}
	return now.Add(-o.TTL)
}

// pruneDirectory removes what is over the limits; thorough also what is of no use.
func (b *Builder) pruneDirectory(dir string, o CacheOptions, thorough bool) error {
	s, err := store.ReadShared(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was kept yet
	}
	if err == nil && s.ReadOnly() {
		err = fmt.Errorf("%s: %w", dir, store.ErrReadOnly)
	}
	if err != nil {
		return &environmentError{err}
	}
	now := time.Now()
	layers := slices.ContainsFunc(o.Repos, func(name string) bool {
		d, local := cache.Directory(name)
		return local && d == dir
	})
	po := cache.PruneOptions{
		Limits: store.Limits{Size: o.DirSize}, Thorough: thorough, Orphans: thorough && !o.alsoBases(dir), Now: now,
	}
	if o.alsoBases(dir) {
		po.TTL = o.DirTTL
	}
	if layers {
		po.Oldest = o.oldest(now)
	}
	p, err := cache.Prune(s, po)
	if err != nil {
		return &environmentError{fmt.Errorf("%s: %w", dir, err)}
	}
	if thorough || p.Items > 0 {
		b.Log.Info(fmt.Sprintf("%s: removed %d records, %d tags and %d files and directories with %s%s", dir, p.Records, p.Tags, p.Items, progress.Bytes(p.Bytes), busy(p.Busy)))
	}
	return nil
}

func busy(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d are in use and stay", n)
}

// tidy keeps directories within their limits, after a build that has written to mounts, nil for none. Trouble is a warning.
func (b *Builder) tidy(o CacheOptions, mounts *caches) {
	if o.ReadOnly || !(store.Limits{Size: o.DirSize, TTL: o.DirTTL}).Set() {
		return
	}
	if mounts != nil {
		mounts.measure()
	}
	var dirs []string
	if o.Dir != "" {
		dirs = append(dirs, o.Dir)
	}
	for _, name := range o.Repos {
		if dir, local := cache.Directory(name); local && !o.alsoBases(dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		if err := b.pruneDirectory(dir, o, false); err != nil && !errors.Is(err, store.ErrReadOnly) {
			b.Log.Warn(fmt.Sprintf("the cache cannot be kept within its limits: %v", err))
		}
	}
}

// remoteMount is a cache mount in a registry, with the bytes of its blob.
type remoteMount struct {
	MountInventory
	artifact *registry.Artifact
	blob     int64
}

// remoteMounts reads the cache mounts of a repository. What is none of ours is left out.
func (b *Builder) remoteMounts(ctx context.Context, repo string, tags []string) ([]remoteMount, error) {
	var out []remoteMount
	for _, tag := range tags {
		if !strings.HasPrefix(tag, mountTagPrefix) {
			continue
		}
		a, err := b.Registry.Artifact(ctx, repo+":"+tag)
		if err != nil {
			return nil, err
		}
		if a == nil {
			continue // removed meanwhile
		}
		c, err := readMountConfig(a)
		if err != nil {
			b.Log.Warn(fmt.Sprintf("%s:%s: %v", repo, tag, err))
			continue
		}
		out = append(out, remoteMount{MountInventory{tag, c.ID, c.Size, c.Created}, a, a.Manifest.Layers[0].Size})
	}
	return out, nil
}
