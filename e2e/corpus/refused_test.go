// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// refusal is a base that nothing can be built on.
type refusal struct {
	name  string
	image func(t *testing.T, usable v1.Image) v1.Image
	says  []string // in the one line that says why
}

func refusals() []refusal {
	foreign := func(a mutate.Addendum) func(*testing.T, v1.Image) v1.Image {
		return func(t *testing.T, usable v1.Image) v1.Image {
			t.Helper()
			image, err := mutate.Append(usable, a)
			if err != nil {
				t.Fatal(err)
			}
			return image
		}
	}
	const encrypted types.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
	return []refusal{
		{"urls", foreign(mutate.Addendum{Layer: static.NewLayer([]byte("x"), types.OCILayer), URLs: []string{"https://example.com/layer"}}), []string{"layer 2 of 2 (sha256:", "foreign", "https://example.com/layer"}},
		{"foreign", foreign(mutate.Addendum{Layer: static.NewLayer([]byte("x"), types.DockerForeignLayer), MediaType: types.DockerForeignLayer}), []string{"layer 2 of 2 (sha256:", "foreign"}},
		{"nondistributable", foreign(mutate.Addendum{Layer: static.NewLayer([]byte("x"), types.OCIRestrictedLayer), MediaType: types.OCIRestrictedLayer}), []string{"layer 2 of 2 (sha256:", "foreign"}},
		{"encrypted", foreign(mutate.Addendum{Layer: static.NewLayer([]byte("x"), encrypted), MediaType: encrypted}), []string{"layer 2 of 2 (sha256:", "encrypted"}},
		{"unknown", foreign(mutate.Addendum{Layer: static.NewLayer([]byte("x"), "application/x-squashfs"), MediaType: "application/x-squashfs"}), []string{"layer 2 of 2 (sha256:", "application/x-squashfs"}},
		{"windows", windows, []string{"Windows"}},
		{"artifact", func(_ *testing.T, usable v1.Image) v1.Image {
			return mutate.ConfigMediaType(usable, "application/vnd.cncf.helm.config.v1+json")
		}, []string{"application/vnd.cncf.helm.config.v1+json"}},
	}
}

func windows(t *testing.T, usable v1.Image) v1.Image {
	t.Helper()
	config, err := usable.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS = "windows"
	image, err := mutate.ConfigFile(usable, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestRefusedBases builds on what cannot be built on, FROM it and with COPY --from of it: exit code 3 and one line that names the
// image, the layer and the reason, before anything is fetched that is large.
func TestRefusedBases(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	binary, err := testenv.Compile(t.Context(), testenv.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	bottom, err := layer(tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	usable, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), bottom)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refusals() {
		base := host + "/refused/" + r.name + ":1"
		put(t, base, r.image(t, usable))
		for kind, dockerfile := range map[string]string{"from": "FROM " + base + "\nUSER 1\n", "copy": "FROM scratch\nCOPY --from=" + base + " /a /a\n"} {
			t.Run(r.name+"-"+kind, func(t *testing.T) {
				dir := testenv.Dir(t)
				if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
					t.Fatal(err)
				}
				run := testenv.Build{Binary: binary, Situation: testenv.PrivilegedRoot(), Env: map[string]string{
					"KANIKO_CONTEXT": dir, "KANIKO_DESTINATION": host + "/refused/out:1",
				}}.Run(t)
				if run.Code != 3 || len(run.Results) > 0 {
					t.Errorf("exit code %d, results %v:\n%s", run.Code, run.Results, run.Log)
				}
				for _, text := range append(r.says, base, "Dockerfile:") {
					if !strings.Contains(run.Cause, text) {
						t.Errorf("%q is not in the last line %q", text, run.Cause)
					}
				}
			})
		}
	}
}

// put pushes an image with all its layers, whatever their types say of that.
func put(t *testing.T, reference string, image v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithNondistributable, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}
