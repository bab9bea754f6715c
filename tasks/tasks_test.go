// SPDX-License-Identifier: Apache-2.0

package tasks

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tektoncd/pipeline/pkg/apis/config"
	"github.com/tektoncd/pipeline/pkg/apis/pipeline"
	pipelinev1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	"sigs.k8s.io/yaml"

	stepconfig "github.com/kaniko-go/kaniko-go/step/config"
)

// files lists the Task of every directory.
func files(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no Tasks")
	}
	return list
}

func read(t *testing.T, file string) (string, *pipelinev1.Task) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	task := &pipelinev1.Task{}
	if err := yaml.UnmarshalStrict(content, task); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return string(content), task
}

// stable is a context in which only what is stable in Tekton is permitted: a
// cluster needs no feature flag for what passes.
func stable(t *testing.T) context.Context {
	t.Helper()
	flags, err := config.NewFeatureFlagsFromMap(map[string]string{"enable-api-fields": "stable"})
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := config.NewDefaultsFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	return config.ToContext(t.Context(), &config.Config{FeatureFlags: flags, Defaults: defaults})
}

func TestTektonAcceptsTheTasks(t *testing.T) {
	for _, file := range files(t) {
		ctx := stable(t)
		_, task := read(t, file)
		if dir := filepath.Dir(file); task.Name != dir || filepath.Base(file) != dir+".yaml" {
			t.Errorf("%s: the Task is named %s; directory, file and Task have one name", file, task.Name)
		}
		task.SetDefaults(ctx)
		if err := task.Validate(ctx); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestTektonRefuses holds that the validation looks at what it is given.
func TestTektonRefuses(t *testing.T) {
	ctx := stable(t)
	_, task := read(t, files(t)[0])
	task.Spec.Steps[0].Env[0].Value = "$(params.NONE)"
	task.SetDefaults(ctx)
	if err := task.Validate(ctx); err == nil || !strings.Contains(err.Error(), "NONE") {
		t.Errorf("a parameter that is not declared: %v", err)
	}
}

var reference = regexp.MustCompile(`\$\(([^)]*)\)`)

// TestReferences checks what Tekton does not: that every workspace that is
// referred to is declared, and that all that is declared is used.
func TestReferences(t *testing.T) {
	for _, file := range files(t) {
		text, task := read(t, file)
		// Results are written through KANIKO_RESULTS_DIR, all of them at once.
		declared := map[string]bool{"credentials.path": true}
		for _, p := range task.Spec.Params {
			declared["params."+p.Name] = false
		}
		for _, w := range task.Spec.Workspaces {
			declared["workspaces."+w.Name+".path"] = false
		}
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			if _, ok := declared[m[1]]; !ok {
				t.Errorf("%s: %s is not declared", file, m[0])
			}
			declared[m[1]] = true
		}
		for name, used := range declared {
			if !used {
				t.Errorf("%s: %s is declared and never used", file, name)
			}
		}
		volumes := map[string]bool{}
		for _, v := range task.Spec.Volumes {
			volumes[v.Name] = false
		}
		for _, s := range task.Spec.Steps {
			for _, m := range s.VolumeMounts {
				if _, ok := volumes[m.Name]; !ok {
					t.Errorf("%s: volume %s is not declared", file, m.Name)
				}
				volumes[m.Name] = true
			}
		}
		for name, used := range volumes {
			if !used {
				t.Errorf("%s: volume %s is never mounted", file, name)
			}
		}
	}
}

// TestStep holds what the design promises of every step.
func TestStep(t *testing.T) {
	known := map[string]bool{}
	for _, v := range stepconfig.Variables() {
		known[v.Name] = true
	}
	for _, file := range files(t) {
		_, task := read(t, file)
		for _, s := range task.Spec.Steps {
			if len(s.Command) == 0 || s.Script != "" || len(s.Args) != 0 {
				t.Errorf("%s: step %s is to have a command, and neither script nor arguments", file, s.Name)
			}
			sc := s.SecurityContext
			if sc == nil || sc.Privileged == nil || *sc.Privileged || len(sc.Capabilities.Drop) != 1 || sc.Capabilities.Drop[0] != "ALL" {
				t.Errorf("%s: step %s is not without privilege: %+v", file, s.Name, sc)
			}
			for _, c := range sc.Capabilities.Add {
				if !slices.Contains(baseline(), string(c)) {
					t.Errorf("%s: step %s adds %s, which Pod Security baseline forbids", file, s.Name, c)
				}
			}
			for _, e := range s.Env {
				if !known[e.Name] {
					t.Errorf("%s: step %s sets %s, which the binary does not know", file, s.Name, e.Name)
				}
				if e.Name == "KANIKO_RESULTS_DIR" && e.Value != pipeline.DefaultResultPath {
					t.Errorf("%s: results go to %s, Tekton reads %s", file, e.Value, pipeline.DefaultResultPath)
				}
			}
		}
	}
}

// baseline lists what Pod Security "baseline" permits to add.
func baseline() []string {
	return []string{
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
		"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	}
}
