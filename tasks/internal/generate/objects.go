// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/kaniko-go/kaniko-go/step/config"
)

// object is one thing that users install, as its template sees it.
type object struct {
	Kind, Name, Version, Image string
	// Path is that of the file, from the root of the repository.
	Path   string
	Params []param
	// Argo has the parameters of each template of a WorkflowTemplate.
	Argo argo
	// Index are the parameters that what builds several platforms hands on to what makes the index.
	Index []param
	// Outputs are the results under the names that they have in Argo.
	Outputs []string

	template, readme string
	// list is the list of the catalog that the object is in; "" for none.
	list string
}

// argo has the parameters of each template for Argo Workflows, and those of Build that MultiArch does not have.
type argo struct{ Build, Index, MultiArch, NotMultiArch, Split []param }

// param is one parameter of a Task or of a template for Argo Workflows.
type param struct {
	// Name is UPPER_CASE for Tekton, Kebab the same for Argo.
	Name, Kebab string
	Variable    string
	Default     string
	Desc        string
	Required    bool
}

func objects(all []param) []object {
	index := indexParams(all)
	// The caches of a split build are on its own volume, and it always pushes.
	split := without(all, "KANIKO_NO_PUSH", "KANIKO_DRYRUN", "KANIKO_CACHE_DIR", "KANIKO_CACHE_REPO")
	// The platform is chosen for each of the builds whose images make the index.
	multiArch := without(all, "KANIKO_NO_PUSH", "KANIKO_DRYRUN", "KANIKO_PLATFORM", "KANIKO_DESTINATION", "KANIKO_CACHE_DIR")
	notMultiArch := slices.DeleteFunc(slices.Clone(all), func(p param) bool { return p.Required || slices.Contains(multiArch, p) })
	forArgo := argo{Build: all, Index: index, MultiArch: multiArch, NotMultiArch: notMultiArch, Split: split}
	list := []object{
		// The directory of the cache is a workspace.
		{Kind: "Task", Name: "kaniko-go", Params: without(all, "KANIKO_CACHE_DIR"), template: "task.yaml.tmpl", readme: "task.md.tmpl"},
		{Kind: "Task", Name: "kaniko-go-index", Params: index, template: "index.yaml.tmpl", readme: "index.md.tmpl"},
		{Kind: "Task", Name: "kaniko-go-split", Params: split, template: "split.yaml.tmpl", readme: "split.md.tmpl"},
		{Kind: "Pipeline", Name: "kaniko-go-multiarch", Params: multiArch, template: "multiarch.yaml.tmpl", readme: "multiarch.md.tmpl"},
		{Kind: "StepAction", Name: "kaniko-go", Params: all, template: "stepaction.yaml.tmpl", readme: "stepaction.md.tmpl"},
		{Kind: "WorkflowTemplate", Name: "kaniko-go", Argo: forArgo, template: "workflow.yaml.tmpl", readme: "workflow.md.tmpl"},
		{Kind: "ClusterWorkflowTemplate", Name: "kaniko-go", Argo: forArgo, template: "workflow.yaml.tmpl"},
	}
	for i := range list {
		o := &list[i]
		o.Version, o.Image = version, image
		o.Index = without(index, "KANIKO_DESTINATION")
		o.Outputs = []string{"image-digest", "image-url", "image-ref", "images"}
		directory, file := "tasks/"+o.Name, o.Name
		switch o.Kind {
		case "Task":
			o.list = "Tasks"
		case "Pipeline":
			o.list = "Pipelines"
		case "StepAction":
			// Catalogues look for StepActions apart from Tasks; and this one has the name of a Task.
			directory, o.list = "stepactions/"+o.Name, "StepActions"
		case "WorkflowTemplate":
			directory = "workflows/" + o.Name
		case "ClusterWorkflowTemplate":
			directory, file = "workflows/"+o.Name, o.Name+"-cluster"
		}
		o.Path = directory + "/" + file + ".yaml"
	}
	return list
}

// params are all parameters that the configuration names, what is asked for first.
func params() []param {
	var list []param
	for _, v := range config.Variables() {
		if v.Param == "" {
			continue
		}
		p := param{
			Name: v.Param, Kebab: strings.ToLower(strings.ReplaceAll(v.Param, "_", "-")),
			Variable: v.Name, Default: v.Default, Desc: v.Desc,
			Required: v.Name == "KANIKO_DESTINATION",
		}
		if p.Required {
			p.Desc, _, _ = strings.Cut(p.Desc, " Required unless")
		}
		if v.Type == "list" {
			p.Desc += " One item a line, or a JSON array of strings."
		}
		if p.Required {
			list = slices.Insert(list, 0, p)
		} else {
			list = append(list, p)
		}
	}
	return list
}

func without(all []param, variables ...string) []param {
	return slices.DeleteFunc(slices.Clone(all), func(p param) bool { return slices.Contains(variables, p.Variable) })
}

// indexParams are those that mode index looks at.
func indexParams(all []param) []param {
	groups := map[string]string{}
	for _, v := range config.Variables() {
		groups[v.Name] = v.Group
	}
	only := []string{"KANIKO_DESTINATION", "KANIKO_ANNOTATION", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
	return slices.DeleteFunc(slices.Clone(all), func(p param) bool {
		group := groups[p.Variable]
		return group != "Registries" && group != "Log" && !slices.Contains(only, p.Variable)
	})
}
