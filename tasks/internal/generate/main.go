// SPDX-License-Identifier: Apache-2.0

// Command generate writes what users install: the Tekton Task with its README,
// the Argo WorkflowTemplate and the catalog. Parameters, their defaults and
// descriptions, and the wiring of parameters to variables come from the tags of
// config.Config; only what is particular to Tekton or Argo is written here, in
// the templates. A test fails when a committed file is not what this writes.
package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/kaniko-go/kaniko-go/step/config"
)

// version is that of the next release, without the v. The label of the Task
// must equal the tag of the release for catalogues to accept it.
const version = "0.1.0"

// Paths of the generated files, from the root of the repository.
const (
	taskFile     = "tasks/kaniko-go/kaniko-go.yaml"
	readmeFile   = "tasks/kaniko-go/README.md"
	workflowFile = "workflows/kaniko-go/kaniko-go.yaml"
	catalogFile  = "catalog.yaml"
)

//go:embed templates
var templates embed.FS

func main() {
	root := flag.String("root", ".", "root of the repository")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	files, err := render()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(root, f.path), f.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

type file struct {
	path    string
	content []byte
}

// render makes all files; the catalog is last because it holds the Task.
func render() ([]file, error) {
	data := struct {
		Version   string
		Variables []config.Variable
		Params    []param
	}{version, config.Variables(), params()}

	var files []file
	for _, f := range []struct{ path, template string }{
		{taskFile, "task.yaml.tmpl"},
		{readmeFile, "readme.md.tmpl"},
		{workflowFile, "workflow.yaml.tmpl"},
	} {
		content, err := execute(f.template, data)
		if err != nil {
			return nil, err
		}
		files = append(files, file{f.path, content})
	}
	task := files[0].content
	catalog, err := execute("catalog.yaml.tmpl", struct {
		Version, File, Checksum, Task string
	}{version, taskFile, fmt.Sprintf("%x", sha256.Sum256(task)), string(task)})
	if err != nil {
		return nil, err
	}
	return append(files, file{catalogFile, catalog}), nil
}

// param is one parameter of the Task and of the WorkflowTemplate.
type param struct {
	// Name is UPPER_CASE for Tekton, Kebab the same for Argo.
	Name, Kebab string
	Variable    string
	Default     string
	Desc        string
	Required    bool
}

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
		if v.Type == "list" {
			p.Desc += " One item a line, or a JSON array of strings."
		}
		if p.Required { // what is asked for comes first
			list = append([]param{p}, list...)
		} else {
			list = append(list, p)
		}
	}
	return list
}

func execute(name string, data any) ([]byte, error) {
	funcs := template.FuncMap{
		// Every JSON string is a YAML string.
		"quote": func(s string) string { return fmt.Sprintf("%q", s) },
		"item":  item,
		"cell":  func(s string) string { return strings.ReplaceAll(s, "|", `\|`) },
	}
	tmpl, err := template.New(name).Funcs(funcs).ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = tmpl.Execute(&out, data)
	return out.Bytes(), err
}

// item makes a YAML document an item of a list. Comments before it stay out.
func item(doc string) string {
	_, doc, _ = strings.Cut(doc, "---\n")
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimRight(doc, "\n"), "\n") {
		switch {
		case i == 0:
			b.WriteString("  - " + line + "\n")
		case line == "":
			b.WriteString("\n")
		default:
			b.WriteString("    " + line + "\n")
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
