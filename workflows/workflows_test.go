// SPDX-License-Identifier: Apache-2.0

package workflows

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v3/workflow/templateresolution"
	"github.com/argoproj/argo-workflows/v3/workflow/validate"
	"sigs.k8s.io/yaml"

	stepconfig "github.com/kaniko-go/kaniko-go/step/config"
)

// getter finds the one template of a test.
type getter struct{ tmpl *wfv1.WorkflowTemplate }

func (g getter) Get(name string) (*wfv1.WorkflowTemplate, error) {
	if name != g.tmpl.Name {
		return nil, fmt.Errorf("no WorkflowTemplate %s", name)
	}
	return g.tmpl, nil
}

func files(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no WorkflowTemplates")
	}
	return list
}

func read(t *testing.T, file string) (string, *wfv1.WorkflowTemplate) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &wfv1.WorkflowTemplate{}
	if err := yaml.UnmarshalStrict(content, tmpl); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return string(content), tmpl
}

func TestArgoAcceptsTheTemplates(t *testing.T) {
	for _, file := range files(t) {
		_, tmpl := read(t, file)
		if dir := filepath.Dir(file); tmpl.Name != dir || filepath.Base(file) != dir+".yaml" {
			t.Errorf("%s: the template is named %s; directory, file and template have one name", file, tmpl.Name)
		}
		err := validate.ValidateWorkflowTemplate(getter{tmpl}, &templateresolution.NullClusterWorkflowTemplateGetter{}, tmpl, nil, validate.ValidateOpts{})
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
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
            templateRef: {name: kaniko-go, template: build}
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
	_, tmpl := read(t, "kaniko-go/kaniko-go.yaml")
	tests := []struct{ name, parameter, output, want string }{
		{"digest", "image", "image-digest", ""},
		{"url", "image", "image-url", ""},
		{"reference", "image", "image-ref", ""},
		{"all", "image", "images", ""},
		{"no such output", "image", "nope", "steps.build.outputs.parameters.nope"},
		{"image is required", "target", "image-ref", "inputs.parameters.image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wf := &wfv1.Workflow{}
			if err := yaml.UnmarshalStrict(fmt.Appendf(nil, caller, tt.parameter, tt.output), wf); err != nil {
				t.Fatal(err)
			}
			err := validate.ValidateWorkflow(getter{tmpl}, &templateresolution.NullClusterWorkflowTemplateGetter{}, wf, nil, validate.ValidateOpts{})
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error about %s", err, tt.want)
			}
		})
	}
}

var reference = regexp.MustCompile(`\{\{([^}]*)\}\}`)

// TestReferences checks what Argo does not: a template that is referred to is
// fed by its inputs alone, and uses all of them.
func TestReferences(t *testing.T) {
	for _, file := range files(t) {
		text, wt := read(t, file)
		declared := map[string]bool{}
		for _, tmpl := range wt.Spec.Templates {
			for _, p := range tmpl.Inputs.Parameters {
				declared["inputs.parameters."+p.Name] = false
			}
			volumes := map[string]bool{}
			for _, v := range tmpl.Volumes {
				volumes[v.Name] = false
			}
			for _, m := range tmpl.Container.VolumeMounts {
				if _, ok := volumes[m.Name]; !ok {
					t.Errorf("%s: volume %s is not on the template", file, m.Name)
				}
				volumes[m.Name] = true
			}
			for name, used := range volumes {
				if !used {
					t.Errorf("%s: volume %s is never mounted", file, name)
				}
			}
		}
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			if _, ok := declared[m[1]]; !ok {
				t.Errorf("%s: %s is not an input of the template", file, m[0])
			}
			declared[m[1]] = true
		}
		for name, used := range declared {
			if !used {
				t.Errorf("%s: %s is declared and never used", file, name)
			}
		}
		if len(wt.Spec.Volumes) != 0 || wt.Spec.SecurityContext != nil || len(wt.Spec.Arguments.Parameters) != 0 {
			t.Errorf("%s: the specification holds what a templateRef does not bring", file)
		}
	}
}

// TestTemplate holds what the design promises of every template.
func TestTemplate(t *testing.T) {
	known := map[string]bool{}
	for _, v := range stepconfig.Variables() {
		known[v.Name] = true
	}
	for _, file := range files(t) {
		_, wt := read(t, file)
		for _, tmpl := range wt.Spec.Templates {
			c := tmpl.Container
			if c == nil || len(c.Command) == 0 || len(c.Args) != 0 {
				t.Fatalf("%s: template %s is to be a container with a command and no arguments", file, tmpl.Name)
			}
			sc := c.SecurityContext
			if sc == nil || sc.Privileged == nil || *sc.Privileged || len(sc.Capabilities.Drop) != 1 || sc.Capabilities.Drop[0] != "ALL" {
				t.Errorf("%s: template %s is not without privilege: %+v", file, tmpl.Name, sc)
			}
			results := ""
			for _, e := range c.Env {
				if !known[e.Name] {
					t.Errorf("%s: template %s sets %s, which the binary does not know", file, tmpl.Name, e.Name)
				}
				if e.Name == "KANIKO_RESULTS_DIR" {
					results = e.Value
				}
			}
			for _, o := range tmpl.Outputs.Parameters {
				// Argo reads outputs from a volume after the container has ended;
				// on the container's own file system they may not survive.
				if o.ValueFrom == nil || o.ValueFrom.Default == nil || filepath.Dir(o.ValueFrom.Path) != results {
					t.Errorf("%s: output %s is to have a default and to be in %s: %+v", file, o.Name, results, o.ValueFrom)
				}
			}
		}
	}
}
