// SPDX-License-Identifier: Apache-2.0

package workflows

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v3/workflow/templateresolution"
	"github.com/argoproj/argo-workflows/v3/workflow/validate"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

const (
	templateFile = "kaniko-go/kaniko-go.yaml"
	clusterFile  = "kaniko-go/kaniko-go-cluster.yaml"
)

// getter finds the one template of a test.
type getter struct{ tmpl *wfv1.WorkflowTemplate }

func (g getter) Get(name string) (*wfv1.WorkflowTemplate, error) {
	if name != g.tmpl.Name {
		return nil, fmt.Errorf("no WorkflowTemplate %s", name)
	}
	return g.tmpl, nil
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func template(t *testing.T) *wfv1.WorkflowTemplate {
	t.Helper()
	tmpl := &wfv1.WorkflowTemplate{}
	read(t, templateFile, tmpl)
	return tmpl
}

// samples gives the Workflows that people copy, by file.
func samples(t *testing.T) map[string]*wfv1.Workflow {
	t.Helper()
	files, err := filepath.Glob("kaniko-go/samples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 {
		t.Fatalf("only %d samples", len(files))
	}
	list := map[string]*wfv1.Workflow{}
	for _, file := range files {
		wf := &wfv1.Workflow{}
		read(t, file, wf)
		list[file] = wf
	}
	return list
}

// containers gives those that run our program, under the names that they have in a pod.
func containers(tmpl wfv1.Template) []corev1.Container {
	switch {
	case tmpl.Container != nil:
		c := *tmpl.Container
		c.Name = "main"
		return []corev1.Container{c}
	case tmpl.ContainerSet != nil:
		return tmpl.ContainerSet.GetContainers()
	}
	return nil
}

func validateTemplate(tmpl *wfv1.WorkflowTemplate) error {
	return validate.ValidateWorkflowTemplate(getter{tmpl}, &templateresolution.NullClusterWorkflowTemplateGetter{}, tmpl, nil, validate.ValidateOpts{})
}

func validateWorkflow(t *testing.T, wf *wfv1.Workflow) error {
	t.Helper()
	return validate.ValidateWorkflow(getter{template(t)}, &templateresolution.NullClusterWorkflowTemplateGetter{}, wf, nil, validate.ValidateOpts{})
}

func TestArgoAcceptsTheTemplates(t *testing.T) {
	tmpl := template(t)
	if err := validateTemplate(tmpl); err != nil {
		t.Error(err)
	}
	cluster := &wfv1.ClusterWorkflowTemplate{}
	read(t, clusterFile, cluster)
	if err := validate.ValidateClusterWorkflowTemplate(getter{tmpl}, &templateresolution.NullClusterWorkflowTemplateGetter{}, cluster, nil, validate.ValidateOpts{}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(tmpl.Spec, cluster.Spec); diff != "" || tmpl.Name != cluster.Name || cluster.Kind != "ClusterWorkflowTemplate" {
		t.Errorf("%s is not %s but for its kind: %s", clusterFile, templateFile, diff)
	}
}

func TestArgoAcceptsTheSamples(t *testing.T) {
	for file, wf := range samples(t) {
		if err := validateWorkflow(t, wf); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestGivenParameters holds that samples give only parameters and artifacts that the template has: Argo takes any.
func TestGivenParameters(t *testing.T) {
	byName := map[string]wfv1.Template{}
	for _, tmpl := range template(t).Spec.Templates {
		byName[tmpl.Name] = tmpl
	}
	used := map[string]bool{}
	for file, wf := range samples(t) {
		for _, tmpl := range wf.Spec.Templates {
			for _, group := range tmpl.Steps {
				for _, step := range group.Steps {
					if step.TemplateRef == nil {
						continue
					}
					callee := byName[step.TemplateRef.Template]
					used[callee.Name] = true
					for _, p := range step.Arguments.Parameters {
						if callee.Inputs.GetParameterByName(p.Name) == nil {
							t.Errorf("%s: the template %s has no parameter %s", file, callee.Name, p.Name)
						}
					}
					for _, a := range step.Arguments.Artifacts {
						if callee.Inputs.GetArtifactByName(a.Name) == nil {
							t.Errorf("%s: the template %s has no artifact %s", file, callee.Name, a.Name)
						}
					}
				}
			}
		}
	}
	for _, name := range []string{"build", "build-volume", "index", "multi-arch", "split"} {
		if !used[name] {
			t.Errorf("no sample uses the template %s", name)
		}
	}
}

// apply does what the controller does with a podSpecPatch.
func apply(t *testing.T, spec corev1.PodSpec, patch string) corev1.PodSpec {
	t.Helper()
	change, err := yaml.YAMLToJSON([]byte(patch))
	if err != nil {
		t.Fatal(err)
	}
	before, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, change, corev1.PodSpec{})
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.PodSpec
	if err := yaml.UnmarshalStrict(after, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestPatches applies what samples give as pod-spec-patch to the pods of the template.
func TestPatches(t *testing.T) {
	byName := map[string]wfv1.Template{}
	for _, tmpl := range template(t).Spec.Templates {
		byName[tmpl.Name] = tmpl
	}
	patched := map[string]corev1.PodSpec{}
	for file, wf := range samples(t) {
		step := wf.Spec.Templates[0].Steps[len(wf.Spec.Templates[0].Steps)-1].Steps[0]
		if step.TemplateRef == nil {
			step = wf.Spec.Templates[0].Steps[0].Steps[0]
		}
		patch := step.Arguments.GetParameterByName("pod-spec-patch")
		if patch == nil || step.TemplateRef == nil {
			continue
		}
		tmpl := byName[step.TemplateRef.Template]
		spec := corev1.PodSpec{Containers: containers(tmpl), Volumes: tmpl.Volumes}
		got := apply(t, spec, patch.Value.String())
		if len(got.Containers) != len(spec.Containers) {
			t.Errorf("%s: the patch makes %d containers of %d", file, len(got.Containers), len(spec.Containers))
		}
		patched[filepath.Base(file)] = got
	}
	if p := patched["user-namespace.yaml"]; p.HostUsers == nil || *p.HostUsers || !strings.Contains(fmt.Sprint(p.Containers[0].SecurityContext.Capabilities.Add), "SYS_ADMIN") || len(p.Containers[0].Env) < 30 {
		t.Errorf("user-namespace.yaml: %+v", p)
	}
	if sc := patched["restricted.yaml"].SecurityContext; sc == nil || sc.RunAsUser == nil || *sc.RunAsUser == 0 || sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot || sc.SeccompProfile == nil {
		t.Errorf("restricted.yaml: Argo's own containers would be refused: %+v", sc)
	}
	if p := patched["restricted.yaml"]; *p.Containers[0].SecurityContext.RunAsUser == 0 || len(p.Containers[0].SecurityContext.Capabilities.Add) != 0 || len(p.Containers[0].SecurityContext.Capabilities.Drop) != 1 {
		t.Errorf("restricted.yaml: %+v", p.Containers[0].SecurityContext)
	}
	if p := patched["secret.yaml"]; len(p.Volumes) != 5 || len(p.Containers[0].VolumeMounts) != 5 {
		t.Errorf("secret.yaml: %+v", p.Volumes)
	}
}

// caller is a workflow that uses the template as the documentation tells
// people to, and one of its outputs.
const caller = `
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  generateName: build-
spec:
  entrypoint: main
  templates:
    - name: main
      steps:
        - - name: build
            templateRef: {name: kaniko-go, template: %s}
            arguments:
              parameters:
                - {name: %s, value: "registry.example.com/team/app:v1"}
              artifacts:
                - name: context
                  raw: {data: "FROM scratch"}
        - - name: deploy
            template: deploy
            arguments:
              parameters:
                - {name: ref, value: "{{steps.build.outputs.parameters.%s}}"}
    - name: deploy
      inputs:
        parameters: [{name: ref}]
      container: {image: "registry.example.com/deploy:v1", command: [deploy, "{{inputs.parameters.ref}}"]}
`

func TestArgoAcceptsACaller(t *testing.T) {
	tests := []struct{ name, template, parameter, output, want string }{
		{"digest", "build", "image", "image-digest", ""},
		{"url", "build", "image", "image-url", ""},
		{"reference", "build", "image", "image-ref", ""},
		{"all", "build", "image", "images", ""},
		{"split", "split", "image", "image-ref", ""},
		{"several platforms", "multi-arch", "image", "images", ""},
		{"no such output", "build", "image", "nope", "steps.build.outputs.parameters.nope"},
		{"image is required", "build", "target", "image-ref", "inputs.parameters.image"},
		{"the volume is required", "build-volume", "image", "image-ref", "inputs.parameters.volume"},
		{"images are required", "index", "image", "image-ref", "inputs.parameters.platform-images"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wf := &wfv1.Workflow{}
			if err := yaml.UnmarshalStrict(fmt.Appendf(nil, caller, tt.template, tt.parameter, tt.output), wf); err != nil {
				t.Fatal(err)
			}
			err := validateWorkflow(t, wf)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error about %s", err, tt.want)
			}
		})
	}
}
