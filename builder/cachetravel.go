// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/snapshot"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

const (
	// mountTagPrefix begins the tags of cache mounts in the repository of the layer cache.
	mountTagPrefix = "mount-"
	// mountConfigType is the media type of what says which cache it is.
	mountConfigType types.MediaType = "application/vnd.kaniko-go.cache-mount.v1+json"
	// mountRoot is the name of the cache's own directory in the layer that carries it.
	mountRoot = "mount"
	// firstRoom is the name of the first directory of a cache.
	firstRoom = "0"
	// storePatience is how long a cache is waited for, at the end of a build, that another build has.
	storePatience = 5 * time.Second
)

// mountConfig says what a layer with a cache mount is. The layer is bound to it by diffID.
type mountConfig struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Size is that of all files.
	Size   int64   `json:"size"`
	DiffID v1.Hash `json:"diffID"`
}

// mountTravel moves the contents of cache mounts through the repositories of the layer cache. Trouble is a warning: the cache then
// begins empty, or is not stored.
type mountTravel struct {
	client *registry.Client
	repos  []string
	// readOnly stores nothing; limit bounds a cache, in bytes.
	readOnly bool
	limit    int64
	log      *progress.Log
	disk     *store.Store
}

// openTravel is nil where caches do not travel.
func (b *Builder) openTravel(r Request, disk *store.Store) *mountTravel {
	if !r.Cache.MountsTravel {
		return nil
	}
	t := &mountTravel{client: b.Registry, readOnly: r.Cache.ReadOnly, limit: r.Cache.MountLimit, log: b.Log, disk: disk}
	for _, repo := range r.Cache.Repos {
		if _, local := cache.Directory(repo); !local {
			t.repos = append(t.repos, repo)
		}
	}
	if len(t.repos) == 0 {
		return nil
	}
	return t
}

func mountTag(repo, key string) string { return repo + ":" + mountTagPrefix + key }

// load makes the directory at path, with what a registry has of the cache, and tells whether it did.
func (t *mountTravel) load(ctx context.Context, key, path string) bool {
	if t == nil {
		return false
	}
	for _, repo := range t.repos {
		c, err := t.loadFrom(ctx, mountTag(repo, key), path)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				t.log.Warn(fmt.Sprintf("a cache mount cannot be loaded from %s, going on without: %v", repo, err))
			}
			_ = os.RemoveAll(path)
		case c != nil:
			t.log.Info(fmt.Sprintf("cache mount %s: %s from %s, stored %s", c.ID, progress.Bytes(c.Size), repo, c.Created.Format(time.RFC3339)))
			return true
		}
	}
	return false
}

// loadFrom returns nil if there is no such tag.
func (t *mountTravel) loadFrom(ctx context.Context, ref, path string) (*mountConfig, error) {
	a, err := t.client.Artifact(ctx, ref)
	if a == nil || err != nil {
		return nil, err
	}
	c, err := readMountConfig(a)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if c.Size > t.limit {
		return nil, fmt.Errorf("%s: %s, more than KANIKO_CACHE_MOUNTS_MAX_SIZE", ref, progress.Bytes(c.Size))
	}
	l, err := a.Layer(ctx, a.Manifest.Layers[0], c.DiffID)
	if err != nil {
		return nil, err
	}
	in, err := layer.Ingest(ctx, t.disk, l, true)
	if err != nil {
		return nil, err
	}
	all, err := in.Index.Apply(tree.Empty())
	if err != nil {
		return nil, err
	}
	root, err := all.Lookup(mountRoot)
	if err != nil {
		return nil, err
	}
	if root == nil || root.Type != tree.Dir {
		return nil, fmt.Errorf("%s: no directory /%s in the layer", ref, mountRoot)
	}
	if n, err := treeSize(root); err != nil || n > t.limit {
		return nil, errors.Join(err, fmt.Errorf("%s: %s, more than KANIKO_CACHE_MOUNTS_MAX_SIZE", ref, progress.Bytes(n)))
	}
	return c, unpackAs(ctx, root, path)
}

// readMountConfig checks that an artifact is a cache mount of ours.
func readMountConfig(a *registry.Artifact) (*mountConfig, error) {
	if a.Manifest.Config.MediaType != mountConfigType || len(a.Manifest.Layers) != 1 {
		return nil, fmt.Errorf("no cache mount of ours: its config is of type %q", a.Manifest.Config.MediaType)
	}
	c := &mountConfig{}
	return c, json.Unmarshal(a.Config, c)
}

// treeSize is the size of all files below a directory.
func treeSize(dir *tree.Inode) (n int64, err error) {
	err = tree.FromRoot(dir).Walk(func(_ string, ino *tree.Inode) error {
		if ino.Type == tree.File {
			n += ino.Size
		}
		return nil
	})
	return n, err
}

// store puts the caches that the build wrote to into the registry.
func (c *caches) store(ctx context.Context) {
	if c.travel == nil || c.travel.readOnly {
		return
	}
	for _, u := range c.written() {
		if ctx.Err() != nil {
			return
		}
		if u.name != firstRoom {
			continue // the one that is loaded is the one that is stored
		}
		if err := c.travel.store(ctx, u.key, u); err != nil && ctx.Err() == nil {
			c.log.Warn(fmt.Sprintf("cache mount %s is not stored: %v", u.about, err))
		}
	}
}

// store stores one, which nobody may have meanwhile.
func (t *mountTravel) store(ctx context.Context, key string, u *usedCache) error {
	claim, err := claimWithin(ctx, u, storePatience)
	if err != nil {
		return err
	}
	defer claim.Release()
	f, err := os.OpenFile(claim.Path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	root, err := treeOfDir(ctx, f)
	if err != nil {
		return err
	}
	size, err := treeSize(root)
	if err != nil {
		return err
	}
	claim.Label(store.Label{About: u.about, Size: size})
	if size > t.limit {
		return fmt.Errorf("it has %s, more than KANIKO_CACHE_MOUNTS_MAX_SIZE", progress.Bytes(size))
	}
	l, err := t.layer(ctx, root)
	if err != nil {
		return err
	}
	config := mountConfig{ID: u.about, Created: time.Now().UTC().Truncate(time.Second), Size: size}
	if config.DiffID, err = l.DiffID(); err != nil {
		return err
	}
	for _, repo := range t.repos {
		if err := t.push(ctx, repo, mountTag(repo, key), config, l); err != nil {
			return err
		}
		t.log.Info(fmt.Sprintf("cache mount %s: %s stored in %s", u.about, progress.Bytes(size), repo))
	}
	return nil
}

// claimWithin claims a directory alone, and waits for it.
func claimWithin(ctx context.Context, u *usedCache, patience time.Duration) (*store.Claim, error) {
	for end := time.Now().Add(patience); ; {
		claim, err := store.ClaimDir(u.dir, u.name, store.Want{Exclusive: true})
		if err == nil || !errors.Is(err, store.ErrBusy) || time.Now().After(end) {
			return claim, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(claimPoll):
		}
	}
}

// treeOfDir is a directory on disk as an inode, without following a link.
func treeOfDir(ctx context.Context, dir *os.File) (*tree.Inode, error) {
	t, _, err := snapshot.Walk(ctx, dir, snapshot.Nothing(), tree.Empty(), snapshot.Options{})
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	return t.Root().With(tree.Meta{Mode: uint16(st.Mode & 0o7777), UID: st.Uid, GID: st.Gid, MTime: st.Mtim.Sec}), nil
}

// layer makes the layer that carries a cache.
func (t *mountTravel) layer(ctx context.Context, root *tree.Inode) (*layer.Layer, error) {
	var changes []tree.Change
	whole := tree.FromRoot(tree.NewDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: mountRoot, Inode: root}))
	if err := tree.Diff(tree.Empty(), whole, func(c tree.Change) error {
		changes = append(changes, c)
		return nil
	}); err != nil {
		return nil, err
	}
	return layer.Write(ctx, t.disk, changes, layer.Compression{Algorithm: "zstd"})
}

// push makes a tag lead to a cache.
func (t *mountTravel) push(ctx context.Context, repo, ref string, config mountConfig, l v1.Layer) error {
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	configLayer := static.NewLayer(raw, mountConfigType)
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, part := range []struct {
		of v1.Layer
		to func(v1.Descriptor)
	}{
		{configLayer, func(d v1.Descriptor) { manifest.Config = d }},
		{l, func(d v1.Descriptor) { manifest.Layers = []v1.Descriptor{d} }},
	} {
		d, err := partial.Descriptor(part.of)
		if err != nil {
			return err
		}
		part.to(v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	}
	if raw, err = json.Marshal(manifest); err != nil {
		return err
	}
	if err := t.client.UploadCache(ctx, repo, l); err != nil {
		return err
	}
	return t.client.PushArtifact(ctx, ref, configLayer, raw)
}
