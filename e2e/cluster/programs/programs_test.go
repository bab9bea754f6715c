// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestVersions: what the cluster says of its versions is what its programs are made of.
func TestVersions(t *testing.T) {
	data, err := os.ReadFile("../parts/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for module, version := range map[string]string{
		"k8s.io/kubernetes": KubernetesVersion, "github.com/containerd/containerd/v2": ContainerdVersion, tekton: TektonVersion, argo: ArgoVersion,
	} {
		if !slices.Contains(lines, "\t"+module+" "+version) {
			t.Errorf("go.mod does not require %s %s", module, version)
		}
	}
}
