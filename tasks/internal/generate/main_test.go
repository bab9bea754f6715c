// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const root = "../../.."

func TestFilesAreCurrent(t *testing.T) {
	files, err := render()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(f.content), string(got)); diff != "" {
			t.Errorf("%s is stale; run go generate ./tasks (-want +got):\n%s", f.path, diff)
		}
	}
}

// TestParamsAreDistinct holds that no two variables claim one parameter.
func TestParamsAreDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, p := range params() {
		if other, twice := seen[p.Name]; twice {
			t.Errorf("%s and %s both have the parameter %s", other, p.Variable, p.Name)
		}
		seen[p.Name] = p.Variable
	}
}

// TestCatalog reads the committed catalog as both of its readers do.
func TestCatalog(t *testing.T) {
	type resource struct{ Name, Version, Filename, Checksum, Signature string }
	var catalog struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Version    string `json:"version"`
		Catalog    struct {
			Resources struct {
				Tasks       []resource `json:"tasks"`
				Pipelines   []resource `json:"pipelines"`
				StepActions []resource `json:"stepactions"`
			} `json:"resources"`
		} `json:"catalog"`
		Items []any `json:"items"`
	}
	content, err := os.ReadFile(filepath.Join(root, "catalog.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &catalog); err != nil {
		t.Fatal(err)
	}
	if catalog.APIVersion != "v1" || catalog.Kind != "List" || catalog.Version != "v1" {
		t.Errorf("header: %s %s, contract %s", catalog.APIVersion, catalog.Kind, catalog.Version)
	}
	r := catalog.Catalog.Resources
	if len(r.Tasks) != 3 || len(r.Pipelines) != 1 || len(r.StepActions) != 1 || len(catalog.Items) != 5 {
		t.Fatalf("%d Tasks, %d Pipelines and %d StepActions in the contract, %d items in the list", len(r.Tasks), len(r.Pipelines), len(r.StepActions), len(catalog.Items))
	}
	for i, entry := range slices.Concat(r.Tasks, r.Pipelines, r.StepActions) {
		file, err := os.ReadFile(filepath.Join(root, entry.Filename))
		if err != nil {
			t.Fatal(err)
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(file)); sum != entry.Checksum {
			t.Errorf("%s: checksum %s, file has %s", entry.Filename, entry.Checksum, sum)
		}
		var want any
		if err := yaml.Unmarshal(file, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, catalog.Items[i]); diff != "" {
			t.Errorf("%s: the item is not the file (-file +item):\n%s", entry.Filename, diff)
		}
		metadata := want.(map[string]any)["metadata"].(map[string]any)
		labels := metadata["labels"].(map[string]any)
		if metadata["name"] != entry.Name || labels["app.kubernetes.io/version"] != entry.Version {
			t.Errorf("%s: metadata %v, contract %s %s", entry.Filename, metadata, entry.Name, entry.Version)
		}
	}
}
