// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

// pruneRegistry removes records and cache mounts that are too old: a registry knows of no last use. Tags that have nothing left are
// deleted, others lead to a manifest without the old records, and the manifest before is deleted. What becomes of blobs that
// no manifest refers to any more is the registry's business.
func (b *Builder) pruneRegistry(ctx context.Context, repo string, o CacheOptions) error {
	tags, err := b.Registry.Tags(ctx, repo)
	if err != nil {
		return err
	}
	oldest := o.oldest(time.Now())
	if oldest.IsZero() {
		b.Log.Info(fmt.Sprintf("%s: KANIKO_CACHE_TTL is no limit, nothing is removed", repo))
		return nil
	}
	sets, err := cache.ListRegistry(ctx, b.Registry, repo, tags)
	if err != nil {
		return err
	}
	mounts, err := b.remoteMounts(ctx, repo, tags)
	if err != nil {
		return err
	}
	p := &registryPrune{Builder: b, repo: repo}
	for _, t := range sets {
		if err := p.records(ctx, t, oldest); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if !m.Created.Before(oldest) {
			continue
		}
		if err := p.delete(ctx, m.artifact.Digest); err != nil {
			return err
		}
		if p.refused == nil {
			p.removed++
		}
	}
	b.Log.Info(fmt.Sprintf("%s: removed %d records; deleted %d tags, %d cache mounts among them", repo, p.dropped, p.tags+p.removed, p.removed))
	return p.refused
}

// registryPrune is one repository on its way.
type registryPrune struct {
	*Builder
	repo                   string
	dropped, tags, removed int
	// refused is that the registry permits no deletion; what can be done without goes on.
	refused error
}

func (p *registryPrune) records(ctx context.Context, t cache.Tagged, oldest time.Time) error {
	if t.Err != nil {
		p.Log.Warn(fmt.Sprintf("%s:%s cannot be read and is left alone: %v", p.repo, t.Tag, t.Err))
		return nil //nolint:nilerr // what can be pruned is
	}
	set, n := t.Set.Since(oldest)
	if n == 0 {
		return nil
	}
	p.dropped += n
	// Also the tag that is going to be deleted: where deletion is not permitted it is at least small, and keeps no layers.
	if err := cache.Rewrite(ctx, p.Registry, p.repo, t.Tag, set); err != nil {
		return err
	}
	if err := p.delete(ctx, t.Digest); err != nil || !set.Empty() {
		return err
	}
	a, err := p.Registry.Artifact(ctx, p.repo+":"+t.Tag)
	if a == nil {
		return err
	}
	err = p.delete(ctx, a.Digest)
	if err == nil && p.refused == nil {
		p.tags++
	}
	return err
}

// delete deletes a manifest. That the registry permits none is remembered.
func (p *registryPrune) delete(ctx context.Context, digest v1.Hash) error {
	if p.refused != nil {
		return nil //nolint:nilerr // it would say the same
	}
	err := p.Registry.Delete(ctx, p.repo, digest)
	var trouble *registry.Error
	if errors.As(err, &trouble) && trouble.Class == registry.Refused {
		p.refused, err = err, nil
	}
	return err
}
