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
	pipelinev1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	"github.com/tektoncd/pipeline/pkg/apis/pipeline/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	"sigs.k8s.io/yaml"
)

// object is what there is in every file: one of Tekton's types, or one that Kubernetes has.
type object interface {
	SetDefaults(context.Context)
	Validate(context.Context) *apis.FieldError
}

// document is one YAML document of a file.
type document struct {
	file, text string
	kind, name string
	// object is nil for what is not Tekton's.
	object object
}

// published lists what people install.
func published(t *testing.T) []document {
	t.Helper()
	return documents(t, "*/*.yaml", "../stepactions/*/*.yaml")
}

// samples lists what people copy.
func samples(t *testing.T) []document {
	t.Helper()
	return documents(t, "*/samples/*.yaml", "../stepactions/*/samples/*.yaml", "*/tests/*.yaml")
}

func documents(t *testing.T, patterns ...string) []document {
	t.Helper()
	var list []document
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Fatalf("no %s", pattern)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for text := range strings.SplitSeq("\n"+string(content), "\n---\n") {
				if doc, ok := parse(t, file, text); ok {
					list = append(list, doc)
				}
			}
		}
	}
	return list
}

var generated = regexp.MustCompile(`(?m)^  generateName: (.*)\n`)

// parse decodes one document strictly; there is none where only comments are.
func parse(t *testing.T, file, text string) (document, bool) {
	t.Helper()
	// The API server makes the name before Tekton sees the object.
	text = generated.ReplaceAllString(text, "  name: ${1}x\n")
	var head struct {
		metav1.TypeMeta
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal([]byte(text), &head); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if head.Kind == "" {
		return document{}, false
	}
	doc := document{file: file, text: text, kind: head.Kind, name: head.Metadata.Name}
	into := map[string]any{
		"tekton.dev/v1 Task": &pipelinev1.Task{}, "tekton.dev/v1 TaskRun": &pipelinev1.TaskRun{},
		"tekton.dev/v1 Pipeline": &pipelinev1.Pipeline{}, "tekton.dev/v1 PipelineRun": &pipelinev1.PipelineRun{},
		"tekton.dev/v1beta1 StepAction": &v1beta1.StepAction{},
		"v1 ServiceAccount":             &corev1.ServiceAccount{}, "v1 ConfigMap": &corev1.ConfigMap{},
	}[head.APIVersion+" "+head.Kind]
	if into == nil {
		t.Fatalf("%s: %s %s is not expected here", file, head.APIVersion, head.Kind)
	}
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	doc.object, _ = into.(object)
	return doc, true
}

// flags is a context with Tekton's feature flags as they are where only fields of that stability are permitted.
func flags(t *testing.T, fields string) context.Context {
	t.Helper()
	flags, err := config.NewFeatureFlagsFromMap(map[string]string{"enable-api-fields": fields})
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := config.NewDefaultsFromMap(nil)
	if err != nil {
		t.Fatal(err)
	}
	return config.ToContext(t.Context(), &config.Config{FeatureFlags: flags, Defaults: defaults})
}

// TestTektonAccepts decodes strictly and validates with Tekton's own code. Only what has a matrix, and resolvers in samples, needs more
// than what is stable; beta is what a cluster has where nobody has set anything.
func TestTektonAccepts(t *testing.T) {
	for _, doc := range slices.Concat(published(t), samples(t)) {
		if doc.object == nil {
			continue
		}
		ctx := flags(t, "stable")
		if strings.Contains(doc.text, "matrix:") || strings.Contains(doc.text, "resolver:") {
			ctx = flags(t, "beta")
		}
		doc.object.SetDefaults(ctx)
		if err := doc.object.Validate(ctx); err != nil {
			t.Errorf("%s: %s %s: %v", doc.file, doc.kind, doc.name, err)
		}
	}
}

// TestNames holds what catalogues find things by: directory, file and object have one name.
func TestNames(t *testing.T) {
	for _, doc := range published(t) {
		directory := filepath.Base(filepath.Dir(doc.file))
		if doc.name != directory || filepath.Base(doc.file) != directory+".yaml" {
			t.Errorf("%s: the %s is named %s", doc.file, doc.kind, doc.name)
		}
		for _, beside := range []string{"README.md", "samples"} {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc.file), beside)); err != nil {
				t.Errorf("%s: %v", doc.file, err)
			}
		}
	}
}

// TestIgnored holds that Artifact Hub lists the Tasks here and nothing else: it takes every directory for one that artifacthub-repo.yml does not name.
func TestIgnored(t *testing.T) {
	text, err := os.ReadFile("artifacthub-repo.yml")
	if err != nil {
		t.Fatal(err)
	}
	var repository struct {
		Ignore []struct {
			Name string `json:"name"`
		} `json:"ignore"`
	}
	if err := yaml.UnmarshalStrict(text, &repository); err != nil {
		t.Fatal(err)
	}
	var ignored, others []string
	for _, entry := range repository.Ignore {
		ignored = append(ignored, entry.Name)
	}
	for _, doc := range documents(t, "*/*.yaml") {
		if doc.kind != "Task" {
			others = append(others, doc.name)
		}
	}
	if !slices.Equal(ignored, others) {
		t.Errorf("ignored are %q, and no Tasks are %q", ignored, others)
	}
}

// TestTektonRefuses holds that the validation looks at what it is given.
func TestTektonRefuses(t *testing.T) {
	ctx := flags(t, "stable")
	for _, doc := range published(t) {
		spoiled, ok := parse(t, doc.file, strings.Replace(doc.text, "$(params.IMAGE)", "$(params.NONE)", 1))
		if !ok {
			t.Fatalf("%s: nothing left", doc.file)
		}
		spoiled.object.SetDefaults(ctx)
		if err := spoiled.object.Validate(ctx); err == nil || !strings.Contains(err.Error(), "NONE") {
			t.Errorf("%s: a parameter that is not declared: %v", doc.file, err)
		}
	}
}
