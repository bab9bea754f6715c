// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"sigs.k8s.io/yaml"
)

// archive is a tar.gz with the files given, by name and without anything that differs from run to run.
func archive(files map[string][]byte, epoch time.Time) ([]byte, error) {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(files[name])), Mode: 0o644, ModTime: epoch, Format: tar.FormatPAX}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// bundle makes a Tekton bundle of the items of a List: an image with one object a layer, each layer a tar.gz with one file in JSON and
// annotations that say what it is. Tekton's resolver takes at most 20.
func bundle(list []byte, epoch time.Time) (v1.Image, error) {
	var items struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := yaml.Unmarshal(list, &items); err != nil {
		return nil, fmt.Errorf("catalog.yaml: %w", err)
	}
	if n := len(items.Items); n == 0 || n > 20 {
		return nil, fmt.Errorf("catalog.yaml has %d items, a bundle 1 to 20", n)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, item := range items.Items {
		addendum, err := bundled(item, epoch)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, addendum); err != nil {
			return nil, err
		}
	}
	return mutate.CreatedAt(img, v1.Time{Time: epoch})
}

// bundled is the layer of one object.
func bundled(item json.RawMessage, epoch time.Time) (mutate.Addendum, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(item, &head); err != nil {
		return mutate.Addendum{}, err
	}
	if !strings.HasPrefix(head.APIVersion, "tekton.dev/") || head.Metadata.Name == "" {
		return mutate.Addendum{}, fmt.Errorf("%s %s is nothing for a Tekton bundle", head.APIVersion, head.Kind)
	}
	packed, err := archive(map[string][]byte{head.Metadata.Name: item}, epoch)
	if err != nil {
		return mutate.Addendum{}, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }
	layer, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return mutate.Addendum{}, err
	}
	return mutate.Addendum{Layer: layer, MediaType: types.OCILayer, Annotations: map[string]string{
		"dev.tekton.image.apiVersion": head.APIVersion,
		"dev.tekton.image.kind":       strings.ToLower(head.Kind),
		"dev.tekton.image.name":       head.Metadata.Name,
	}}, nil
}

// pushBundle pushes with the credentials of the docker configuration.
func pushBundle(ctx context.Context, img v1.Image, ref string) error {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	if err := remote.Write(parsed, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "bundle %s@%s\n", parsed.Context().Name(), digest)
	return nil
}
