// SPDX-License-Identifier: Apache-2.0

// Package bundle takes what `make bundle` pushes out of a registry with the code of Tekton's bundles resolver. It is a module apart, because
// that code drags in every cloud's credential helper, which nothing else here needs.
package bundle

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/tektoncd/pipeline/pkg/resolution/resolver/bundle"
	"sigs.k8s.io/yaml"
)

// release runs the command of that name in the repository.
func release(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "./release"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
}

func TestResolver(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/bundle:v0"
	dir := t.TempDir()
	release(t, "dist", "-dist", dir, "-digest", "sha256:"+strings.Repeat("ab", 32))
	release(t, "bundle", "-dist", dir, ref)

	text, err := os.ReadFile(filepath.Join(dir, "catalog.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []map[string]any `json:"items"`
	}
	if err := yaml.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) < 5 {
		t.Fatalf("only %d objects", len(list.Items))
	}
	resolve := func(kind, name string) (map[string]any, error) {
		got, err := bundle.GetEntry(t.Context(), authn.DefaultKeychain, bundle.RequestOptions{Bundle: ref, EntryName: name, Kind: kind})
		if err != nil {
			return nil, err
		}
		var object map[string]any
		return object, yaml.Unmarshal(got.Data(), &object)
	}
	for _, item := range list.Items {
		kind, name := strings.ToLower(item["kind"].(string)), item["metadata"].(map[string]any)["name"].(string)
		object, err := resolve(kind, name)
		if err != nil {
			t.Errorf("%s %s: %v", kind, name, err)
			continue
		}
		if diff := cmp.Diff(item, object); diff != "" {
			t.Errorf("%s %s (-catalog +bundle):\n%s", kind, name, diff)
		}
	}
	if _, err := resolve("pipeline", "kaniko-go"); err == nil {
		t.Error("there is a Pipeline kaniko-go in the bundle")
	}
}
