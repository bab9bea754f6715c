// SPDX-License-Identifier: Apache-2.0

package tasks

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tektoncd/pipeline/pkg/apis/pipeline"
	pipelinev1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	"github.com/tektoncd/pipeline/pkg/apis/pipeline/v1beta1"
	corev1 "k8s.io/api/core/v1"

	stepconfig "github.com/kaniko-go/kaniko-go/step/config"
)

// steps gives the steps of everything that has steps, with what all steps of a Task have in common.
func steps(doc document) []pipelinev1.Step {
	switch o := doc.object.(type) {
	case *pipelinev1.Task:
		list := slices.Clone(o.Spec.Steps)
		if o.Spec.StepTemplate != nil {
			for i := range list {
				list[i].Env = slices.Concat(o.Spec.StepTemplate.Env, list[i].Env)
			}
		}
		return list
	case *v1beta1.StepAction:
		return []pipelinev1.Step{{
			Name: o.Name, Image: o.Spec.Image, Command: o.Spec.Command, Args: o.Spec.Args, Script: o.Spec.Script,
			Env: o.Spec.Env, VolumeMounts: o.Spec.VolumeMounts, SecurityContext: o.Spec.SecurityContext,
		}}
	}
	return nil
}

// TestSteps holds what the design promises of every step.
func TestSteps(t *testing.T) {
	known := map[string]bool{
		"SSL_CERT_DIR": true, // read by Go's own crypto/x509
	}
	for _, v := range stepconfig.Variables() {
		known[v.Name] = true
	}
	tagged := regexp.MustCompile(`^ghcr\.io/kaniko-go/kaniko-go:v[0-9]+\.[0-9]+\.[0-9]+$`)
	for _, doc := range published(t) {
		list := steps(doc)
		if len(list) == 0 && doc.kind != "Pipeline" {
			t.Errorf("%s has no steps", doc.file)
		}
		for _, s := range list {
			if len(s.Command) == 0 || s.Script != "" {
				t.Errorf("%s: step %s is to have a command and no script", doc.file, s.Name)
			}
			for _, a := range s.Args {
				// The words of an array, and nothing that a word could be part of.
				if !strings.HasPrefix(a, "$(params.") || !strings.HasSuffix(a, "[*])") {
					t.Errorf("%s: step %s has the argument %s", doc.file, s.Name, a)
				}
			}
			if !tagged.MatchString(s.Image) {
				t.Errorf("%s: step %s has the image %s", doc.file, s.Name, s.Image)
			}
			checkContext(t, doc.file+": step "+s.Name, s.SecurityContext)
			if !slices.ContainsFunc(s.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == stepconfig.DefaultDir }) {
				t.Errorf("%s: step %s has no volume at %s", doc.file, s.Name, stepconfig.DefaultDir)
			}
			for _, e := range s.Env {
				if !known[e.Name] {
					t.Errorf("%s: step %s sets %s, which the binary does not know", doc.file, s.Name, e.Name)
				}
				if e.Name == "KANIKO_RESULTS_DIR" && e.Value != pipeline.DefaultResultPath && doc.kind == "Task" {
					t.Errorf("%s: results go to %s, Tekton reads %s", doc.file, e.Value, pipeline.DefaultResultPath)
				}
			}
		}
	}
}

func checkContext(t *testing.T, where string, sc *corev1.SecurityContext) {
	t.Helper()
	if sc == nil || sc.Privileged == nil || *sc.Privileged || len(sc.Capabilities.Drop) != 1 || sc.Capabilities.Drop[0] != "ALL" {
		t.Errorf("%s is not without privilege: %+v", where, sc)
		return
	}
	for _, c := range sc.Capabilities.Add {
		if !slices.Contains(baseline(), string(c)) {
			t.Errorf("%s adds %s, which Pod Security baseline forbids", where, c)
		}
	}
}

// TestSplit holds what the split Task is for: no Secret where RUN is, nothing that only one step may see in two, and no workspace for
// credentials, which Tekton would mount into all.
func TestSplit(t *testing.T) {
	for _, doc := range published(t) {
		task, ok := doc.object.(*pipelinev1.Task)
		if !ok || task.Name != "kaniko-go-split" {
			continue
		}
		secret := map[string]bool{}
		for _, v := range task.Spec.Volumes {
			secret[v.Name] = v.Secret != nil
		}
		mounted := map[string][]string{}
		for _, s := range task.Spec.Steps {
			for _, m := range s.VolumeMounts {
				mounted[m.Name] = append(mounted[m.Name], s.Name)
				if secret[m.Name] && s.Name == "build" {
					t.Errorf("the step build mounts %s", m.Name)
				}
			}
			for _, e := range s.Env {
				if s.Name == "build" && (e.Name == "DOCKER_CONFIG" || e.Name == "REGISTRY_AUTH_FILE") {
					t.Errorf("the step build has %s", e.Name)
				}
			}
		}
		for volume, in := range mounted {
			if want := 1; volume != "volume" && len(in) != want {
				t.Errorf("volume %s is mounted in %v", volume, in)
			}
		}
		for _, w := range task.Spec.Workspaces {
			if w.Name == "dockerconfig" {
				t.Error("the Task has a workspace for credentials")
			}
		}
		return
	}
	t.Fatal("there is no Task kaniko-go-split")
}

// TestDropIn holds what makes changing the name of the Task the whole migration: everything that the catalogue's Task kaniko 0.7 has,
// with the same types and defaults that mean the same.
func TestDropIn(t *testing.T) {
	for _, doc := range published(t) {
		task, ok := doc.object.(*pipelinev1.Task)
		if !ok || task.Name != "kaniko-go" {
			continue
		}
		types := map[string]pipelinev1.ParamType{"IMAGE": pipelinev1.ParamTypeString, "DOCKERFILE": pipelinev1.ParamTypeString, "CONTEXT": pipelinev1.ParamTypeString, "EXTRA_ARGS": pipelinev1.ParamTypeArray}
		task.SetDefaults(t.Context())
		for _, p := range task.Spec.Params {
			if want, ok := types[p.Name]; ok && p.Type != want {
				t.Errorf("%s is of type %s, want %s", p.Name, p.Type, want)
			}
			delete(types, p.Name)
			if p.Name != "IMAGE" && p.Default == nil {
				t.Errorf("%s has no default", p.Name)
			}
		}
		if len(types) > 0 {
			t.Errorf("missing: %v", types)
		}
		var workspaces, results []string
		for _, w := range task.Spec.Workspaces {
			if w.Optional != (w.Name != "source") {
				t.Errorf("workspace %s: optional is %v", w.Name, w.Optional)
			}
			workspaces = append(workspaces, w.Name)
		}
		for _, r := range task.Spec.Results {
			results = append(results, r.Name)
		}
		if !slices.Contains(workspaces, "dockerconfig") || !slices.Equal(results, append(resultNames(), "SOURCE_COMMIT")) {
			t.Errorf("workspaces %v, results %v", workspaces, results)
		}
		return
	}
	t.Fatal("there is no Task kaniko-go")
}

// baseline lists what Pod Security "baseline" permits to add.
func baseline() []string {
	return []string{
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
		"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	}
}
