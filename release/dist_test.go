// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"sigs.k8s.io/yaml"
)

var testDigest = "sha256:" + strings.Repeat("ab", 32)

// contract is catalog.yaml as catalog-cd reads it.
type contract struct {
	Catalog struct {
		Resources map[string][]struct {
			Name, Version, Filename, Checksum string
		} `json:"resources"`
	} `json:"catalog"`
	Items []map[string]any `json:"items"`
}

// rendered runs release dist on the repository.
func rendered(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := run(t.Context(), []string{"dist", "-root", "..", "-dist", dir, "-digest", testDigest, "-epoch", "1700000000"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func readContract(t *testing.T, dir string) contract {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "catalog.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c contract
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// members reads a tar.gz.
func members(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = string(content)
	}
}

// TestDist renders what a release has besides binaries, and reads it as catalogues do: every file that the contract names is in the archive with
// its checksum, is the item that kubectl installs, and names the step image by digest.
func TestDist(t *testing.T) {
	dir := rendered(t)
	c := readContract(t, dir)
	files := members(t, filepath.Join(dir, "resources.tar.gz"))
	entries := 0
	for kind, list := range c.Catalog.Resources {
		for _, e := range list {
			content, ok := files[e.Filename]
			if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(content))); !ok || sum != e.Checksum {
				t.Errorf("%s: in the archive: %v, checksum %s, contract %s", e.Filename, ok, sum, e.Checksum)
			}
			if !strings.HasPrefix(e.Filename, kind+"/"+e.Name+"/") || files[filepath.Dir(e.Filename)+"/README.md"] == "" {
				t.Errorf("%s: not where catalogues look for %s, or without README.md", e.Filename, kind)
			}
			var object map[string]any
			if err := yaml.Unmarshal([]byte(content), &object); err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(c.Items, func(item map[string]any) bool { return cmp.Equal(item, object) }) {
				t.Errorf("%s is not among the items", e.Filename)
			}
			entries++
		}
	}
	if entries != 5 || len(c.Items) != entries {
		t.Errorf("%d entries, %d items", entries, len(c.Items))
	}
	checkTree(t, dir)
	checkVersions(t, dir)
}

// checkVersions holds what the linter of tektoncd/catalog asks: KIND/NAME/VERSION/NAME.yaml has the label VERSION.
func checkVersions(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*/*/[0-9]*/*.yaml"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%d objects, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var object struct {
			Kind     string
			Metadata struct {
				Name   string
				Labels map[string]string
			}
		}
		if err := yaml.Unmarshal(text, &object); err != nil {
			t.Fatal(err)
		}
		name := object.Metadata.Name
		if want := filepath.Join(dir, strings.ToLower(object.Kind), name, object.Metadata.Labels["app.kubernetes.io/version"], name+".yaml"); file != want {
			t.Errorf("%s is to be at %s", file, want)
		}
	}
}

// checkTree looks at all files: images with tag and digest, and no link that leads out of the directory.
func checkTree(t *testing.T, dir string) {
	t.Helper()
	ours := regexp.MustCompile(`ghcr\.io/kaniko-go/kaniko-go:v[0-9.]+(@sha256:[0-9a-f]{64})?`)
	var seen []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".gz") {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		seen = append(seen, rel)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range ours.FindAllStringSubmatch(string(text), -1) {
			if m[1] != "@"+testDigest {
				t.Errorf("%s names %s", rel, m[0])
			}
		}
		if strings.Contains(string(text), "](../") {
			t.Errorf("%s has a link that leads nowhere", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"argo/kaniko-go/artifacthub-pkg.yml", "argo/kaniko-go/manifests.yaml", "argo/kaniko-go/README.md", "kaniko-go-argo.yaml", "kaniko-go-argo-cluster.yaml",
		"task/kaniko-go/0.1/kaniko-go.yaml", "task/kaniko-go/0.1/README.md", "task/kaniko-go/0.1/tests/run.yaml", "task/kaniko-go/0.1/samples/claim.yaml", "task/kaniko-go/OWNERS",
		"task/kaniko-go-index/0.1/kaniko-go-index.yaml", "task/kaniko-go-split/0.1/kaniko-go-split.yaml",
		"pipeline/kaniko-go-multiarch/0.1/kaniko-go-multiarch.yaml", "stepaction/kaniko-go/0.1/kaniko-go.yaml",
	} {
		if !slices.Contains(seen, want) {
			t.Errorf("there is no %s", want)
		}
	}
}

// TestDistIsReproducible renders twice.
func TestDistIsReproducible(t *testing.T) {
	read := func(dir string) string {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(dir, "resources.tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	first, second := read(rendered(t)), read(rendered(t))
	if first != second {
		t.Error("resources.tar.gz differs from run to run")
	}
}

// TestDistRefuses holds that nothing is published under another version, or with what is no digest.
func TestDistRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"another version", "the files say v", []string{"-digest", testDigest, "-version", "v99.0.0"}},
		{"no digest", "is not a digest", []string{"-digest", "latest"}},
		{"no image", "run make images", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := run(t.Context(), append([]string{"dist", "-root", "..", "-dist", t.TempDir()}, tt.args...))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestBundle pushes the bundle and reads it as Tekton's contract says: one object a layer, named by annotations. That Tekton's own resolver
// finds them is what e2e/bundle tests, apart because the resolver drags in every cloud's credential helper.
func TestBundle(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/bundle:v0"
	dir := rendered(t)
	if err := run(t.Context(), []string{"bundle", "-dist", dir, ref}); err != nil {
		t.Fatal(err)
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	items := readContract(t, dir).Items
	if len(manifest.Layers) != len(items) {
		t.Fatalf("%d layers for %d objects", len(manifest.Layers), len(items))
	}
	for i, item := range items {
		want := map[string]string{
			"dev.tekton.image.apiVersion": item["apiVersion"].(string),
			"dev.tekton.image.kind":       strings.ToLower(item["kind"].(string)),
			"dev.tekton.image.name":       item["metadata"].(map[string]any)["name"].(string),
		}
		if diff := cmp.Diff(want, manifest.Layers[i].Annotations); diff != "" {
			t.Errorf("layer %d (-want +got):\n%s", i, diff)
		}
	}
}
