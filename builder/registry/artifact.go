// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Patience is how long an operation on something that can be done without, such as a cache, goes on trying, and how long it
// waits for an answer. Transfers that move may take longer.
const Patience = 3 * time.Second

// errPatience is why something small was not waited for.
var errPatience = fmt.Errorf("not done within %s", Patience)

// Artifact is a manifest whose layers are not an image's, and its config. Both are verified.
type Artifact struct {
	Manifest *v1.Manifest
	Config   []byte
	Digest   v1.Hash

	client *Client
	at     *session
	ref    string
}

// Impatient makes all requests under the context, which are for something that can be done without, share [Patience] for
// retries.
func (c *Client) Impatient(ctx context.Context) context.Context { return c.impatient(ctx, pulling) }

// impatient makes all requests under the context share little time for retries.
func (c *Client) impatient(ctx context.Context, d direction) context.Context {
	b := c.newBudget(d)
	b.total, b.connect, b.answer = min(b.total, Patience), min(b.connect, Patience), Patience
	return withBudget(ctx, b)
}

// isImpatient tells whether impatient made the context.
func isImpatient(ctx context.Context) bool {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	return ok && b.answer > 0
}

// Artifact fetches what a tag leads to at this moment; nil if there is no such tag, or no such repository yet. It is not
// remembered, asks no mirror and gives up after [Patience]. Errors are of type [*Error], except when ctx ends.
func (c *Client) Artifact(ctx context.Context, ref string) (*Artifact, error) {
	r, err := c.parsePull(ref)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(c.impatient(ctx, pulling), Patience, errPatience)
	defer cancel()
	a := attempt{op: "read cache", ref: ref, host: r.Context().RegistryStr()}
	s, err := c.session(ctx, r.Context(), pulling, "")
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	a.credential = s.credential
	out := &Artifact{client: c, at: s, ref: ref}
	f, err := s.manifest(ctx, r.Identifier())
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		return nil, nil //nolint:nilnil // said above
	}
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	out.Digest = f.digest
	if out.Manifest, err = v1.ParseManifest(bytes.NewReader(f.raw)); err != nil {
		return nil, a.fail(ctx, unsupported("the manifest is not valid JSON"))
	}
	if out.Config, err = c.fetchConfig(ctx, s, out.Manifest.Config); err != nil {
		return nil, a.fail(ctx, err)
	}
	return out, nil
}

// Blob opens a blob of the artifact's repository. Its bytes are verified at the true end.
func (a *Artifact) Blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return a.client.openBlob(a.client.impatient(ctx, pulling), a.at, a.ref, d)
}

// Layer is a layer in the artifact's repository, to be read under ctx or mounted elsewhere.
func (a *Artifact) Layer(ctx context.Context, d v1.Descriptor, diffID v1.Hash) (v1.Layer, error) {
	a.client.hold(a.at.repo, d.Digest)
	return partial.CompressedToLayer(layer{client: a.client, ctx: a.client.impatient(ctx, pulling), at: a.at, ref: a.ref, desc: d, diffID: diffID})
}

// Has asks whether the artifact's repository has a blob of that digest.
func (a *Artifact) Has(ctx context.Context, digest v1.Hash) (bool, error) {
	ctx = a.client.impatient(ctx, pulling)
	resp, err := a.at.do(ctx, http.MethodHead, a.at.url("blobs", digest.String()), nil, http.StatusOK)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, attempt{op: "read cache", ref: a.ref, host: a.at.repo.RegistryStr(), credential: a.at.credential}.fail(ctx, err)
	}
	return true, resp.Body.Close()
}

// UploadCache is Upload for a cache, whose trouble is not waited for longer than [Patience].
func (c *Client) UploadCache(ctx context.Context, ref string, l v1.Layer) error {
	return c.Upload(c.impatient(ctx, pushing), ref, l)
}

// PushArtifact makes ref, a tag, lead to a manifest of the given config and layers, which must be in the repository. It is
// not read back: what it is for can be done without. Errors are of type [*Error], except when ctx ends.
func (c *Client) PushArtifact(ctx context.Context, ref string, config v1.Layer, manifest []byte) error {
	tag, err := c.parsePush("write cache", ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(c.impatient(ctx, pushing), Patience, errPatience)
	defer cancel()
	if err := c.place(ctx, tag.Repository, config, novel); err != nil {
		return err
	}
	digest, err := hashBytes("sha256", manifest)
	if err != nil {
		return err
	}
	a := attempt{op: "write cache", ref: ref, host: tag.RegistryStr()}
	s, err := c.session(ctx, tag.Repository, pushing, "")
	if err != nil {
		return a.fail(ctx, err)
	}
	a.credential = s.credential
	_, err = s.put(ctx, tag.TagStr(), document{raw: manifest, digest: digest, mediaType: types.OCIManifestSchema1})
	return a.fail(ctx, err)
}
