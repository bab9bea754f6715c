// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/zap"
)

// What a registry may make us hold in memory, and how deep an index may nest.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 512
	maxEntries  = 1000
)

type imageKey struct {
	ref      string
	platform string
}

// fetched is a manifest or an index, verified, and where it was found.
type fetched struct {
	session   *session
	raw       []byte
	digest    v1.Hash
	mediaType types.MediaType
}

// Resolve finds the image that ref means for a platform. The first answer for a
// reference and platform is the answer for the life of the client, and all
// platforms of a reference come from the same bytes. Manifest and config are
// fetched and verified; layers are not touched.
//
// Errors are of type [*Error], except when ctx ends.
func (c *Client) Resolve(ctx context.Context, ref string, platform v1.Platform) (*Image, error) {
	platform = normalise(platform)
	r, err := c.parsePull(ref)
	if err != nil {
		return nil, err
	}
	return c.images.do(ctx, imageKey{r.Name(), platform.String()}, func() (*Image, error) {
		top, err := c.tops.do(ctx, r.Name(), func() (*fetched, error) { return c.fetchTop(ctx, ref, r) })
		if err != nil {
			return nil, err
		}
		a := attempt{op: "pull", ref: ref, host: top.session.repo.RegistryStr(), credential: top.session.credential}
		m, err := c.selectManifest(ctx, top, platform)
		if err != nil {
			return nil, a.fail(ctx, err)
		}
		img, err := c.newImage(ctx, ref, r, m, platform)
		if err != nil {
			return nil, a.fail(ctx, err)
		}
		c.remember(img, m.session.repo)
		return img, nil
	})
}

// fetchTop asks the mirrors and the registry itself for what the reference names.
func (c *Client) fetchTop(ctx context.Context, written string, ref name.Reference) (*fetched, error) {
	places, err := c.candidates(ref)
	if err != nil {
		return nil, err
	}
	var missed []string
	for i, place := range places {
		b := c.newBudget(pulling)
		if outer, ok := ctx.Value(budgetKey{}).(*budget); ok {
			b.total, b.connect = min(b.total, outer.total), min(b.connect, outer.connect)
		}
		last := i == len(places)-1
		if !last {
			b.total = min(b.total, c.o.Timing.MirrorBudget)
			b.connect = min(b.connect, c.o.Timing.MirrorBudget)
		}
		f, err := c.fetchFrom(withBudget(ctx, b), written, place)
		if err == nil {
			return f, nil
		}
		if last || ctx.Err() != nil {
			if len(missed) > 0 {
				return nil, fmt.Errorf("%w (mirrors failed before: %s)", err, strings.Join(missed, "; "))
			}
			return nil, err
		}
		c.log.Warn("mirror failed, trying the next", zap.Error(err))
		missed = append(missed, err.Error())
	}
	return nil, invalid("pull", written, "no place to pull from", "")
}

func (c *Client) fetchFrom(ctx context.Context, written string, place name.Reference) (*fetched, error) {
	a := attempt{op: "pull", ref: written, host: place.Context().RegistryStr()}
	s, err := c.session(ctx, place.Context(), pulling, "")
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	a.credential = s.credential
	f, err := s.manifest(ctx, place.Identifier())
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	return f, nil
}

// acceptManifest lists what we can use first and what we can name in an error after.
func acceptManifest() http.Header {
	var all []string
	for _, t := range []types.MediaType{
		types.OCIImageIndex, types.DockerManifestList, types.OCIManifestSchema1, types.DockerManifestSchema2,
		types.DockerManifestSchema1Signed, types.DockerManifestSchema1,
	} {
		all = append(all, string(t))
	}
	return http.Header{"Accept": {strings.Join(all, ", ")}}
}

// manifest fetches a manifest or index by tag or digest. A digest is verified;
// for a tag, the digest is computed: registries' own header is often wrong.
func (s *session) manifest(ctx context.Context, id string) (*fetched, error) {
	raw, contentType, err := s.read(ctx, s.url("manifests", id), acceptManifest(), maxManifest, "manifest", told)
	if err != nil {
		return nil, err
	}
	f := &fetched{session: s, raw: raw, mediaType: mediaTypeOf(raw, contentType)}
	algorithm := "sha256"
	want, err := v1.NewHash(id)
	if err == nil {
		algorithm = want.Algorithm
	}
	if f.digest, err = hashBytes(algorithm, raw); err != nil {
		return nil, err
	}
	if want != (v1.Hash{}) && f.digest != want {
		return nil, integrity("manifest %s has the digest %s", want, f.digest)
	}
	return f, nil
}

// told compares content with the digest that came beside it. A tag says nothing about its content, so this is all that tells a manifest that
// was damaged on its way; by a digest it is looked at again.
func told(header http.Header, raw []byte) error {
	want, err := v1.NewHash(header.Get("Docker-Content-Digest"))
	if err != nil {
		return nil //nolint:nilerr // not every registry says it
	}
	got, err := hashBytes(want.Algorithm, raw)
	if err != nil || got == want {
		return nil //nolint:nilerr // an algorithm that nobody here knows
	}
	return &finding{class: Integrity, text: fmt.Sprintf("the manifest has the digest %s, and the registry says it is %s", got, want), passing: true}
}

// mediaTypeOf prefers what the digest covers to the header beside it.
func mediaTypeOf(raw []byte, header string) types.MediaType {
	var m struct {
		MediaType types.MediaType `json:"mediaType"`
	}
	if json.Unmarshal(raw, &m) == nil && m.MediaType != "" {
		return m.MediaType
	}
	t, _, _ := strings.Cut(header, ";")
	return types.MediaType(strings.TrimSpace(t))
}

// read fetches something small as a whole, again when it breaks off or check, which may be nil, says so.
func (s *session) read(ctx context.Context, u *url.URL, header http.Header, limit int64, what string, check func(http.Header, []byte) error) (raw []byte, contentType string, err error) {
	err = s.client.persist(ctx, pulling, func(ctx context.Context) error {
		resp, err := s.do(ctx, http.MethodGet, u, header, http.StatusOK)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		contentType = resp.Header.Get("Content-Type")
		if raw, err = readLimited(resp.Body, limit, what); err != nil || check == nil {
			return err
		}
		return check(resp.Header, raw)
	})
	return raw, contentType, err
}

func readLimited(r io.Reader, limit int64, what string) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	if int64(len(raw)) > limit {
		return nil, unsupported("the %s is larger than %d MiB", what, limit>>20)
	}
	return raw, nil
}

func hashBytes(algorithm string, raw []byte) (v1.Hash, error) {
	h, err := v1.Hasher(algorithm)
	if err != nil {
		return v1.Hash{}, unsupported("digest algorithm %s", algorithm)
	}
	_, _ = h.Write(raw) // a hash never fails
	return v1.Hash{Algorithm: algorithm, Hex: fmt.Sprintf("%x", h.Sum(nil))}, nil
}

// selectManifest returns the platform's manifest: top itself, or the one that an
// index has for it.
func (c *Client) selectManifest(ctx context.Context, top *fetched, platform v1.Platform) (*fetched, error) {
	if err := refuseAmbiguous(top.raw); err != nil {
		return nil, err
	}
	if !top.mediaType.IsIndex() {
		return top, nil
	}
	desc, err := chooseFrom(top.raw, platform)
	if err != nil {
		return nil, err
	}
	m, err := top.session.manifest(ctx, desc.Digest.String())
	if err != nil {
		return nil, err
	}
	if int64(len(m.raw)) != desc.Size {
		return nil, integrity("manifest %s has %d bytes, its index says %d", desc.Digest, len(m.raw), desc.Size)
	}
	if m.mediaType == "" {
		m.mediaType = desc.MediaType
	}
	return m, refuseAmbiguous(m.raw)
}

// chooseFrom finds a platform's entry in an index.
func chooseFrom(raw []byte, platform v1.Platform) (v1.Descriptor, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return v1.Descriptor{}, unsupported("the index is not valid JSON")
	}
	if len(index.Manifests) > maxEntries {
		return v1.Descriptor{}, unsupported("the index has more than %d entries", maxEntries)
	}
	return choose(index.Manifests, platform)
}

// refuseAmbiguous refuses documents that are a manifest and an index at once: two
// readers would see two images under one digest (CVE-2021-41190).
func refuseAmbiguous(raw []byte) error {
	var m struct {
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
		Config    json.RawMessage `json:"config"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return unsupported("the manifest is not valid JSON")
	}
	if m.Manifests != nil && (m.Layers != nil || m.Config != nil) {
		return unsupported("the manifest claims to be an index too")
	}
	return nil
}

// remember notes where the layers of an image are, for mounts.
func (c *Client) remember(img *Image, repo name.Repository) {
	for _, d := range img.layers {
		c.hold(repo, d.desc.Digest)
	}
}
