// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests of the built binary: environment in; image, results, log and exit code out. What an image must
// be is kept in testdata, written by another builder and read by people; nothing here looks inside the packages.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	testenv.Main(m, func(_ context.Context, path, _ string) error {
		binary = path
		return nil
	})
}

// world is a registry with a base in it.
type world struct {
	*testenv.Registry
	base      string // reference of the busybox base
	baseImage v1.Image
}

func newWorld(t *testing.T) world {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "busybox", "docker-registry")
	base, err := testenv.Busybox(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w := world{Registry: testenv.NewRegistry(t, testenv.RegistryOptions{}), baseImage: base}
	w.base = w.Host + "/base/busybox:1"
	if err := testenv.Push(context.Background(), base, w.base); err != nil {
		t.Fatal(err)
	}
	return w
}

// login is who may use the registry of a privateWorld.
type login struct{ user, password string }

// privateWorld is a registry that wants a password for everything, with a base in it.
func privateWorld(t *testing.T) (world, login) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "busybox", "docker-registry")
	who := login{"robot", "s3cret-of-the-registry"}
	image, err := testenv.Busybox(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w := world{Registry: testenv.NewRegistry(t, testenv.RegistryOptions{User: who.user, Password: who.password}), baseImage: image}
	w.base = w.Host + "/private/base:1"
	ref, err := name.ParseReference(w.base, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: who.user, Password: who.password})); err != nil {
		t.Fatal(err)
	}
	return w, who
}

// files is a build context, path -> content.
type files map[string]string

// write makes the context in a new directory that every user may read.
func (f files) write(t *testing.T) string {
	t.Helper()
	dir := testenv.Dir(t)
	for name, content := range f {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(full, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// env is what every build here has in common, with more on top.
func (w world) env(context, destination string, more map[string]string) map[string]string {
	env := map[string]string{"KANIKO_CONTEXT": context, "KANIKO_DESTINATION": destination, "KANIKO_BUILD_ARG": "BASE=" + w.base}
	for k, v := range more {
		env[k] = v
	}
	return env
}

// mustSucceed holds an outcome to what every good build owes: exit code 0, both results true, nothing left, and a valid image.
func mustSucceed(t *testing.T, o testenv.Outcome, destination string) v1.Image {
	t.Helper()
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	image, err := testenv.Pull(context.Background(), destination)
	if err != nil {
		t.Fatalf("reading back: %v\n%s", err, o.Log)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if o.Results["IMAGE_DIGEST"] != digest.String() || o.Results["IMAGE_URL"] != destination {
		t.Errorf("results %q; the registry has %s at %s", o.Results, digest, destination)
	}
	if err := validateImage(image); err != nil {
		t.Errorf("the image is not valid: %v", err)
	}
	mustBeClean(t, o)
	return image
}

// validateImage is ggcr's validation, and where that knows no zstd a comparison of every layer with its diffID.
func validateImage(image v1.Image) error {
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(manifest.Layers, func(l v1.Descriptor) bool { return l.MediaType == types.OCILayerZStd }) {
		return validate.Image(image)
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		content, err := l.Uncompressed()
		if err != nil {
			return err
		}
		got, _, err := v1.SHA256(content)
		if err != nil {
			return err
		}
		want, err := l.DiffID()
		if err != nil {
			return err
		}
		if want != got {
			return fmt.Errorf("a layer's diffID is %v in the configuration and %v by its content", want, got)
		}
	}
	return nil
}

func mustBeClean(t *testing.T, o testenv.Outcome) {
	t.Helper()
	if len(o.Left) > 0 {
		t.Errorf("left behind: %q\n%s", o.Left, o.Log)
	}
	if o.Stdout != "" {
		t.Errorf("standard output is not free: %q", o.Stdout)
	}
}

// scratch is the empty image, what FROM scratch begins with.
func scratch() v1.Image { return empty.Image }
