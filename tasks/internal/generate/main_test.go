// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
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
	var catalog struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Version    string `json:"version"`
		Catalog    struct {
			Resources struct {
				Tasks []struct {
					Name, Version, Filename, Checksum, Signature string
				} `json:"tasks"`
			} `json:"resources"`
		} `json:"catalog"`
		Items []any `json:"items"`
	}
	content, err := os.ReadFile(filepath.Join(root, catalogFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &catalog); err != nil {
		t.Fatal(err)
	}
	if catalog.APIVersion != "v1" || catalog.Kind != "List" || catalog.Version != "v1" {
		t.Errorf("header: %s %s, contract %s", catalog.APIVersion, catalog.Kind, catalog.Version)
	}
	tasks := catalog.Catalog.Resources.Tasks
	if len(tasks) == 0 || len(tasks) != len(catalog.Items) {
		t.Fatalf("%d tasks in the contract, %d items in the list", len(tasks), len(catalog.Items))
	}
	for i, task := range tasks {
		file, err := os.ReadFile(filepath.Join(root, task.Filename))
		if err != nil {
			t.Fatal(err)
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(file)); sum != task.Checksum {
			t.Errorf("%s: checksum %s, file has %s", task.Name, task.Checksum, sum)
		}
		var want any
		if err := yaml.Unmarshal(file, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, catalog.Items[i]); diff != "" {
			t.Errorf("%s: the item is not the file (-file +item):\n%s", task.Name, diff)
		}
		labels := want.(map[string]any)["metadata"].(map[string]any)["labels"].(map[string]any)
		if labels["app.kubernetes.io/version"] != task.Version {
			t.Errorf("%s: label %v, contract %s", task.Name, labels, task.Version)
		}
	}
}
