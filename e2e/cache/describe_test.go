// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// describe is everything about an image but times: configuration, history, and the entries of each layer.
func describe(t *testing.T, reference string) string {
	t.Helper()
	image := pull(t, reference)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s %+v\n", config.OS, config.Architecture, config.Config)
	for _, h := range config.History {
		fmt.Fprintf(&b, "history %q %v\n", h.CreatedBy, h.EmptyLayer)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		fmt.Fprintf(&b, "layer %d\n", i+1)
		describeLayer(t, &b, l)
	}
	return b.String()
}

func describeLayer(t *testing.T, b *strings.Builder, l v1.Layer) {
	t.Helper()
	rc, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	for tr := tar.NewReader(rc); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(b, "  %s %c %o %d:%d %s %d %x", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Size, sum.Sum(nil))
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if strings.HasPrefix(k, "SCHILY.xattr.") {
				fmt.Fprintf(b, " %s=%q", k, h.PAXRecords[k])
			}
		}
		b.WriteString("\n")
	}
}

// otherBase is a base with the same files under another digest.
func (w *world) otherBase(t *testing.T) string {
	t.Helper()
	image, err := testenv.Pull(t.Context(), w.base)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Config.Labels = map[string]string{"other": "base"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	reference := w.host + "/base/other:1"
	if err := testenv.Push(t.Context(), image, reference); err != nil {
		t.Fatal(err)
	}
	return reference
}

// index pushes an index of the image and one of another platform.
func (w *world) index(t *testing.T, image string) string {
	t.Helper()
	ours, err := testenv.Pull(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := mutate.ConfigFile(ours, &v1.ConfigFile{OS: "linux", Architecture: "s390x"})
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: foreign, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: ours, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}},
	)
	reference, err := name.ParseReference(strings.Replace(image, "/base/", "/index/", 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(reference, index, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	return reference.String()
}
