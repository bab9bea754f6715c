// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestExamplePods holds the Pods that people copy to the API's own types, to the variables that there are, and to the mounts
// that their volumes and variables need.
func TestExamplePods(t *testing.T) {
	reference, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("../../examples/pods/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var p corev1.Pod
			if err := yaml.UnmarshalStrict(raw, &p); err != nil {
				t.Fatal(err)
			}
			for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
				mounted := func(path string) bool {
					return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
						return path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")
					})
				}
				for _, m := range c.VolumeMounts {
					if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
						t.Errorf("container %s mounts the volume %s, which there is not", c.Name, m.Name)
					}
				}
				for _, e := range c.Env {
					if strings.HasPrefix(e.Name, "KANIKO_") && !strings.Contains(string(reference), "`"+e.Name+"`") {
						t.Errorf("container %s sets %s, which there is not", c.Name, e.Name)
					}
					for line := range strings.Lines(e.Value) {
						path := strings.TrimPrefix(strings.TrimSpace(line), "oci:")
						if filepath.IsAbs(path) && !mounted(path) {
							t.Errorf("container %s: %s is %s, where nothing is mounted", c.Name, e.Name, path)
						}
					}
				}
				if strings.Contains(c.Image, "kaniko-go") && c.Name == "build" && p.Name == "kaniko-go-split" && mounted("/kaniko/.docker") {
					t.Error("the build of the split pod has credentials")
				}
			}
		})
	}
}
