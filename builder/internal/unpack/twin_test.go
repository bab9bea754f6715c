// SPDX-License-Identifier: Apache-2.0

package unpack_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
	"github.com/kaniko-go/kaniko-go/e2e/hostile"
)

// twins are the images of TestTwin: 200 of one seed in any run, as many as asked for of another.
var (
	twins    = flag.Int("hostile.twins", 200, "so many legal images are compared with umoci")
	twinSeed = flag.Uint64("hostile.seed", 5, "seed of the legal images")
)

// TestTwin unpacks ugly images that are allowed, and umoci unpacks them too: they must agree with one another and with the model.
func TestTwin(t *testing.T) {
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("not installed: umoci (on Debian as root: e2e/packages.sh)")
	}
	b := newBench(t)
	images, err := layout.Write(t.TempDir(), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range hostile.Legal(*twinSeed, *twins) {
		t.Run(c.Name, func(t *testing.T) {
			tr, err := b.ingest(t, c.Layers)
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.unpack(t, tr, unpack.Plain)
			if err != nil {
				t.Fatal(err)
			}
			want, err := model(c.Layers)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-model +unpacked):\n%s", d)
			}
			if d := cmp.Diff(sameTimes(umoci(t, images, c), got), got); d != "" {
				t.Errorf("(-umoci +unpacked):\n%s", d)
			}
			if err := b.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// sameTimes gives directories whose time is the present, which no image here has, the time that they have in got: umoci does
// not set it again after it has emptied an opaque directory.
func sameTimes(umoci, got map[string]string) map[string]string {
	for p, line := range umoci {
		fields := strings.SplitN(line, " ", 5)
		at, err := strconv.ParseInt(fields[3], 10, 64)
		if ours := strings.SplitN(got[p], " ", 5); err == nil && line[0] == '5' && len(ours) > 3 && time.Since(time.Unix(at, 0)).Abs() < time.Hour {
			fields[3] = ours[3]
			umoci[p] = strings.Join(fields, " ")
		}
	}
	return umoci
}

// umoci puts the image into the layout and says what umoci makes of it.
func umoci(t *testing.T, images layout.Path, c hostile.Case) map[string]string {
	t.Helper()
	var layers []v1.Layer
	for _, entries := range c.Layers {
		l, err := newBlob(hostile.Tar(entries))
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json"), layers...)
	if err != nil {
		t.Fatal(err)
	}
	img = mutate.ConfigMediaType(img, "application/vnd.oci.image.config.v1+json")
	if err := images.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": c.Name})); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	out, err := exec.CommandContext(t.Context(), "umoci", "raw", "unpack", "--image", string(images)+":"+c.Name, root).CombinedOutput()
	if err != nil {
		t.Fatalf("umoci: %v\n%s", err, out)
	}
	got, err := hostile.List(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	return got
}
