// SPDX-License-Identifier: Apache-2.0

package workflows

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	stepconfig "github.com/kaniko-go/kaniko-go/step/config"
)

var reference = regexp.MustCompile(`\{\{([^}]*)\}\}`)

// TestReferences checks what Argo does not: a template that is referred to is fed by its inputs alone, and uses all of them; workflow.parameters
// would be those of the caller.
func TestReferences(t *testing.T) {
	wt := template(t)
	names := map[string]*wfv1.Template{}
	for i := range wt.Spec.Templates {
		names[wt.Spec.Templates[i].Name] = &wt.Spec.Templates[i]
	}
	for _, tmpl := range wt.Spec.Templates {
		text, err := json.Marshal(tmpl)
		if err != nil {
			t.Fatal(err)
		}
		declared := map[string]bool{}
		for _, p := range tmpl.Inputs.Parameters {
			declared["inputs.parameters."+p.Name] = false
		}
		for _, a := range tmpl.Inputs.Artifacts {
			declared["inputs.artifacts."+a.Name] = a.Path != ""
		}
		for _, group := range tmpl.Steps {
			for _, step := range group.Steps {
				if step.WithParam != "" {
					declared["item.platform"], declared["item.arch"] = false, false
				}
				callee := names[step.Template]
				if callee == nil {
					t.Fatalf("%s: there is no template %s", tmpl.Name, step.Template)
				}
				for _, o := range callee.Outputs.Parameters {
					declared["steps."+step.Name+".outputs.parameters."+o.Name] = true
				}
				checkArguments(t, tmpl.Name, step, callee)
			}
		}
		for _, m := range reference.FindAllStringSubmatch(string(text), -1) {
			if _, ok := declared[m[1]]; !ok {
				t.Errorf("%s: %s is not declared", tmpl.Name, m[0])
			}
			declared[m[1]] = true
		}
		for _, name := range slices.Sorted(maps.Keys(declared)) {
			if !declared[name] {
				t.Errorf("%s: %s is declared and never used", tmpl.Name, name)
			}
		}
		checkVolumes(t, tmpl)
	}
	if len(wt.Spec.Volumes) != 0 || wt.Spec.SecurityContext != nil || len(wt.Spec.Arguments.Parameters) != 0 || wt.Spec.PodSpecPatch != "" {
		t.Error("the specification holds what a templateRef does not bring")
	}
}

func checkArguments(t *testing.T, where string, step wfv1.WorkflowStep, callee *wfv1.Template) {
	t.Helper()
	given := map[string]bool{}
	for _, p := range step.Arguments.Parameters {
		if callee.Inputs.GetParameterByName(p.Name) == nil {
			t.Errorf("%s: %s has no parameter %s", where, callee.Name, p.Name)
		}
		if given[p.Name] {
			t.Errorf("%s: %s is given to %s twice", where, p.Name, callee.Name)
		}
		given[p.Name] = true
	}
	for _, p := range callee.Inputs.Parameters {
		if p.Value == nil && !given[p.Name] {
			t.Errorf("%s: %s needs the parameter %s", where, callee.Name, p.Name)
		}
	}
}

// checkVolumes holds that every volume is on the template, or is the one that the caller names, and mounted.
func checkVolumes(t *testing.T, tmpl wfv1.Template) {
	t.Helper()
	volumes := map[string]bool{}
	for _, v := range tmpl.Volumes {
		volumes[v.Name] = false
	}
	for _, c := range containers(tmpl) {
		for _, m := range c.VolumeMounts {
			if m.Name == "{{inputs.parameters.volume}}" {
				continue
			}
			if _, ok := volumes[m.Name]; !ok {
				t.Errorf("%s: volume %s is not on the template", tmpl.Name, m.Name)
			}
			volumes[m.Name] = true
		}
	}
	for name, used := range volumes {
		if !used {
			t.Errorf("%s: volume %s is never mounted", tmpl.Name, name)
		}
	}
}

// TestContainers holds what the design promises of every container.
func TestContainers(t *testing.T) {
	known := map[string]bool{
		"SSL_CERT_DIR": true, // read by Go's own crypto/x509
	}
	for _, v := range stepconfig.Variables() {
		known[v.Name] = true
	}
	for _, tmpl := range template(t).Spec.Templates {
		results := ""
		for _, c := range containers(tmpl) {
			if len(c.Command) == 0 || len(c.Args) != 0 {
				t.Errorf("template %s: a container is to have a command and no arguments", tmpl.Name)
			}
			sc := c.SecurityContext
			if sc == nil || sc.Privileged == nil || *sc.Privileged || len(sc.Capabilities.Drop) != 1 || sc.Capabilities.Drop[0] != "ALL" {
				t.Errorf("template %s is not without privilege: %+v", tmpl.Name, sc)
			}
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == stepconfig.DefaultDir }) {
				t.Errorf("template %s: no volume at %s", tmpl.Name, stepconfig.DefaultDir)
			}
			for _, e := range c.Env {
				if !known[e.Name] {
					t.Errorf("template %s sets %s, which the binary does not know", tmpl.Name, e.Name)
				}
				if e.Name == "KANIKO_RESULTS_DIR" {
					results = e.Value
				}
			}
		}
		for _, o := range tmpl.Outputs.Parameters {
			if o.ValueFrom == nil || o.ValueFrom.Default == nil {
				t.Errorf("template %s: output %s has no default", tmpl.Name, o.Name)
			}
			// Argo reads outputs from a volume after the container has ended;
			// on the container's own file system they may not survive.
			if tmpl.Steps == nil && filepath.Dir(o.ValueFrom.Path) != results {
				t.Errorf("template %s: output %s is not in %s: %+v", tmpl.Name, o.Name, results, o.ValueFrom)
			}
		}
	}
}

// TestSplit holds that no Secret is where RUN is, and that the containers are in the order of their names: so the message of the node is that of the first that failed.
func TestSplit(t *testing.T) {
	i := slices.IndexFunc(template(t).Spec.Templates, func(tmpl wfv1.Template) bool { return tmpl.Name == "split" })
	tmpl := template(t).Spec.Templates[i]
	secret := map[string]bool{}
	for _, v := range tmpl.Volumes {
		secret[v.Name] = v.Secret != nil
	}
	if names := containers(tmpl); !slices.IsSortedFunc(names, func(a, b corev1.Container) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the containers are not in the order of their names")
	}
	seen := 0
	for _, c := range containers(tmpl) {
		for _, m := range c.VolumeMounts {
			if secret[m.Name] {
				seen++
				if c.Name == "build" {
					t.Errorf("the container build mounts %s", m.Name)
				}
			}
		}
		for _, e := range c.Env {
			if c.Name == "build" && e.Name == "DOCKER_CONFIG" {
				t.Error("the container build has DOCKER_CONFIG")
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d Secrets are mounted", seen)
	}
}

// TestVersions holds that the files have no field that some of Argo 3.5 to 4.1 does not have. The list is what each release after 3.4 added
// to templates and what 4.0 removed; the types of 3.7 refuse unknown fields, but know all that came up to then.
func TestVersions(t *testing.T) {
	since := map[string]string{
		"mutex": "removed in 4.0", "semaphore": "removed in 4.0", "podPriority": "removed in 4.0", "schedule": "removed in 4.0",
		"mutexes": "added in 3.6", "semaphores": "added in 3.6", "schedules": "added in 3.6", "database": "added in 3.6",
		"plugin": "artifacts by it were added in 3.7", "pendingTimeout": "added in 4.0", "podResources": "added in 4.0", "resourceClaims": "added in 4.0", "executorPlugins": "added in 4.0",
	}
	for file, doc := range documents(t) {
		fields(doc, func(key string, _ any) {
			if why := since[key]; why != "" {
				t.Errorf("%s has the field %s, %s", file, key, why)
			}
		})
	}
	for _, tmpl := range template(t).Spec.Templates {
		// What the schemas of 4.0 ask of names.
		if !regexp.MustCompile(`^[a-zA-Z0-9][-a-zA-Z0-9]*$`).MatchString(tmpl.Name) {
			t.Errorf("template name %s", tmpl.Name)
		}
		for _, a := range tmpl.Inputs.Artifacts {
			if !regexp.MustCompile(`^[-a-zA-Z0-9_{}.]+$`).MatchString(a.Name) {
				t.Errorf("artifact name %s", a.Name)
			}
		}
		kinds := 0
		for _, is := range []bool{tmpl.Container != nil, tmpl.ContainerSet != nil, tmpl.Steps != nil, tmpl.DAG != nil, tmpl.Script != nil} {
			if is {
				kinds++
			}
		}
		if kinds != 1 || strings.Contains(tmpl.Name, "_") {
			t.Errorf("template %s is of %d kinds", tmpl.Name, kinds)
		}
	}
}

// TestValues holds that what is given to a parameter is a text: Argo takes a number too, and writes it as it likes.
func TestValues(t *testing.T) {
	for file, doc := range documents(t) {
		fields(doc, func(key string, value any) {
			if _, ok := value.(string); key == "value" && !ok {
				t.Errorf("%s: the value %v is to be quoted", file, value)
			}
		})
	}
}

// documents are the templates and the samples, by the names of their files.
func documents(t *testing.T) map[string]any {
	t.Helper()
	files, err := filepath.Glob("kaniko-go/samples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]any{}
	for _, file := range append(files, templateFile, clusterFile) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := yaml.Unmarshal(content, &doc); err != nil {
			t.Fatal(err)
		}
		docs[file] = doc
	}
	return docs
}

// fields calls f for each field of a document, however deep.
func fields(doc any, f func(key string, value any)) {
	switch v := doc.(type) {
	case map[string]any:
		for key, value := range v {
			f(key, value)
			fields(value, f)
		}
	case []any:
		for _, value := range v {
			fields(value, f)
		}
	}
}
