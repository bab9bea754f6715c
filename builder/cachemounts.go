// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
)

const (
	// maxRooms bounds the directories of one cache: there is one for each that uses it at the same time without sharing.
	maxRooms = 256
	// claimPoll is how often a cache is asked for that another one has; claimSilence is when people are told.
	claimPoll, claimSilence = 50 * time.Millisecond, time.Second
)

// caches are the directories of cache mounts: in the base cache's directory, where builds share them, or in the build's own store.
type caches struct {
	log  *progress.Log
	disk *store.Store
	// dir is "" where nothing outlives the build.
	dir string
	// travel is nil unless the contents go through a registry.
	travel *mountTravel

	mu sync.Mutex
	// own is the build's own directory, "" if none was needed yet.
	own string
	// used are the directories that RUNs of this build wrote to, by path.
	used map[string]*usedCache
	told bool
}

// usedCache is a directory of a cache that a RUN of this build has written to.
type usedCache struct{ key, dir, name, about string }

// openCaches finds out where cache mounts are.
func (b *Builder) openCaches(r Request, disk *store.Store, kept *baseCache) *caches {
	c := &caches{log: b.Log, disk: disk, used: map[string]*usedCache{}}
	if kept != nil && !kept.ReadOnly() {
		c.dir = filepath.Join(kept.Dir(), store.MountsDir)
	}
	c.travel = b.openTravel(r, disk)
	return c
}

// claimCaches claims the caches of all mounts of a RUN, each once, in the same order as every other RUN, so that no two wait for each other.
func (r *run) claimCaches(ctx context.Context, m *mounted, op plan.Run) (map[string]string, error) {
	paths := map[string]string{}
	var wanted []plan.Mount
	for _, pm := range op.Mounts {
		if pm.Type == "cache" {
			wanted = append(wanted, pm)
		}
	}
	key := func(pm plan.Mount) string { return cacheKey(pm, idKind(r.x.Isolation)) }
	slices.SortStableFunc(wanted, func(a, b plan.Mount) int { return strings.Compare(key(a), key(b)) })
	for _, pm := range wanted {
		k := key(pm)
		if _, there := paths[k]; there {
			continue
		}
		claim, err := r.claimCache(ctx, k, pm)
		if err != nil {
			return nil, err
		}
		m.undo = append(m.undo, claim.Release)
		paths[k] = claim.Path
	}
	return paths, nil
}

// claimCache claims one.
func (r *run) claimCache(ctx context.Context, key string, pm plan.Mount) (*store.Claim, error) {
	seed, err := r.seed(ctx, pm)
	if err != nil {
		return nil, err
	}
	c := r.x.caches
	in := c.dir
	if r.x.req.Cache.off(r.stage.Stage) && (pm.Mode != nil || pm.UID != nil || pm.GID != nil) {
		in = "" // As in BuildKit, what it begins with is made anew then, and the cache with it.
	}
	q := claimRequest{key: key, mount: pm, alone: pm.Sharing != "shared" || r.x.roots.OneAtATime() && !pm.ReadOnly}
	q.fill = func(path string) error { return unpackAs(ctx, seed, path) }
	claim, err := c.claim(ctx, in, q)
	if err == nil && !pm.ReadOnly {
		c.note(key, claim, pm)
	}
	return claim, err
}

// seed is what a cache mount begins with; nil for nothing.
func (r *run) seed(ctx context.Context, pm plan.Mount) (*tree.Inode, error) {
	ino := tree.NewDir(tree.Meta{Mode: 0o755})
	if pm.From != nil {
		t, err := r.source(ctx, pm.From)
		if err != nil {
			return nil, err
		}
		if ino, err = t.Stat(pm.Source); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("mount source %q: not found", "/"+pm.Source)
		} else if err != nil {
			return nil, err
		}
		if ino.Type != tree.Dir {
			return nil, fmt.Errorf("mount source %q: %w", "/"+pm.Source, tree.ErrNotDir)
		}
	}
	meta := ino.Meta
	if pm.Mode != nil {
		meta.Mode = uint16(*pm.Mode & 0o7777)
	}
	if pm.UID != nil {
		meta.UID = *pm.UID
	}
	if pm.GID != nil {
		meta.GID = *pm.GID
	}
	return ino.With(meta), nil
}

// cacheKey tells caches apart: by id, by what they begin with, by owner and mode where those are given, and by whose ids the files have.
// It is the same in every build.
func cacheKey(pm plan.Mount, ids string) string {
	h := sha256.New()
	fmt.Fprintf(h, "1 %q %q %s %s %s %q", pm.ID, pm.Source, opt(pm.Mode), opt(pm.UID), opt(pm.GID), ids)
	if from := pm.From; from != nil {
		switch {
		case from.Image != nil:
			fmt.Fprintf(h, " image %q", from.Image.Ref)
		case from.Stage != nil:
			fmt.Fprintf(h, " stage %q", from.Stage.Name)
		case from.Context != nil:
			fmt.Fprintf(h, " context %q", from.Context.Name)
		default:
			fmt.Fprint(h, " scratch")
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

func opt(n *uint32) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// idKind tells apart on whose behalf files are made: what one user namespace writes as root is somebody else's in another. It is "" where
// ids are what they are.
func idKind(s isolation.Status) string {
	if s.Mapping == "" || s.Mapping == isolation.MappingIdentity || len(s.UIDs) == 0 {
		return ""
	}
	return fmt.Sprintf("%s of %d", s.Mapping, s.UIDs[0].Outside)
}

// claimRequest is what a mount wants of a cache.
type claimRequest struct {
	key   string
	mount plan.Mount
	alone bool
	fill  func(path string) error
}

// claim claims a directory of the cache, in a directory that outlives the build or, with "", in the build's own. Where the former does
// not work the latter takes its place.
func (c *caches) claim(ctx context.Context, in string, q claimRequest) (*store.Claim, error) {
	if in != "" {
		claim, err, filling := c.claimIn(ctx, in, q)
		if err == nil || filling || ctx.Err() != nil {
			return claim, err
		}
		c.warn(fmt.Sprintf("cache mounts do not outlive this build: %v", err))
	}
	own, err := c.ownDir()
	if err != nil {
		return nil, err
	}
	claim, err, _ := c.claimIn(ctx, own, q)
	return claim, err
}

// claimIn goes through the directories of a cache. filling says that the error is that of filling a new one.
func (c *caches) claimIn(ctx context.Context, in string, q claimRequest) (_ *store.Claim, err error, filling bool) { //nolint:revive // filling explains the error
	dir := filepath.Join(in, q.key)
	begin, told := time.Now(), false
	for {
		var failed error
		for n := range maxRooms {
			want := store.Want{Exclusive: q.alone, Refill: n == 0 && c.travel != nil, Make: func(path string) error {
				if n == 0 && c.travel.load(ctx, q.key, path) {
					return nil
				}
				failed = q.fill(path)
				return failed
			}}
			claim, err := store.ClaimDir(dir, strconv.Itoa(n), want)
			if err == nil {
				return claim, nil, false
			}
			busy, making := errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrMaking)
			if !busy && !making {
				return nil, err, failed != nil
			}
			if q.mount.Sharing == "locked" || q.mount.Sharing == "shared" && making {
				break
			}
		}
		if !told && time.Since(begin) > claimSilence {
			told = true
			c.log.Info(fmt.Sprintf("waiting for the cache mount %s, which somebody else has", cacheName(q.mount)))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx), false
		case <-time.After(claimPoll):
		}
	}
}

// cacheName is what people call a cache.
func cacheName(pm plan.Mount) string { return strings.TrimPrefix(pm.ID, "/") }

// ownDir is where caches are that do not outlive the build.
func (c *caches) ownDir() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own == "" {
		var err error
		if c.own, err = c.disk.TempDir("caches-"); err != nil {
			return "", err
		}
	}
	return c.own, nil
}

// note remembers a cache that was written to.
func (c *caches) note(key string, claim *store.Claim, pm plan.Mount) {
	about := cacheName(pm)
	claim.Label(store.Label{About: about, Size: claim.Known().Size})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used[claim.Path] = &usedCache{key, filepath.Dir(claim.Path), filepath.Base(claim.Path), about}
}

// measure notes how much is in the directories that the build wrote to, and that others will find.
func (c *caches) measure() {
	for _, u := range c.written() {
		claim, err := store.ClaimDir(u.dir, u.name, store.Want{})
		if err != nil {
			continue // somebody else has it, and will measure it
		}
		room := store.Room{Dir: u.dir, Name: u.name}
		claim.Label(store.Label{About: u.about, Size: room.Measure()})
		claim.Release()
	}
}

// written are the directories that RUNs of this build wrote to.
func (c *caches) written() []*usedCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*usedCache
	for _, path := range slices.Sorted(maps.Keys(c.used)) {
		out = append(out, c.used[path])
	}
	return out
}

// warn says something once.
func (c *caches) warn(text string) {
	c.mu.Lock()
	told := c.told
	c.told = true
	c.mu.Unlock()
	if !told {
		c.log.Warn(text)
	}
}

// unpackAs makes what ino is at a path that does not exist, in a directory of ours alone.
func unpackAs(ctx context.Context, ino *tree.Inode, path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	t := tree.FromRoot(tree.NewDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: filepath.Base(path), Inode: ino}))
	_, err = unpack.Apply(ctx, f, tree.Empty(), t, unpack.Lower)
	return errors.Join(err, f.Close())
}
