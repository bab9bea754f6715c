// SPDX-License-Identifier: Apache-2.0

// Command generate writes what users install: the Tekton Tasks, the StepAction
// and the Pipeline with their READMEs, the templates for Argo Workflows, and
// the catalog. Parameters, their defaults and descriptions, and the wiring of
// parameters to variables come from the tags of config.Config; only what is
// particular to Tekton or Argo is written here, in the templates. A test fails
// when a committed file is not what this writes.
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
)

// version is that of the next release, without the v. The labels of what is
// installed must equal the tag of the release for catalogues to accept it.
const version = "0.1.0"

// image is what every step runs; `make dist` adds the digest.
const image = "ghcr.io/kaniko-go/kaniko-go:v" + version

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
		path := filepath.Join(root, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

type file struct {
	path    string
	content []byte
}

// entry is one object in the catalog.
type entry struct {
	Name, Version, File, Checksum string
	// Document is the object itself.
	Document string
}

// render makes all files; the catalog is last because it holds the others.
func render() ([]file, error) {
	all := params()
	var files []file
	catalog := map[string][]entry{"Version": nil}
	for _, o := range objects(all) {
		content, err := execute(o.template, o)
		if err != nil {
			return nil, err
		}
		files = append(files, file{o.Path, content})
		if o.list != "" {
			catalog[o.list] = append(catalog[o.list], entry{
				o.Name, version, o.Path, fmt.Sprintf("%x", sha256.Sum256(content)), string(content),
			})
		}
		if o.readme == "" {
			continue
		}
		readme, err := execute(o.readme, o)
		if err != nil {
			return nil, err
		}
		files = append(files, file{filepath.Join(filepath.Dir(o.Path), "README.md"), readme})
	}
	content, err := execute("catalog.yaml.tmpl", catalog)
	if err != nil {
		return nil, err
	}
	return append(files, file{"catalog.yaml", content}), nil
}

func execute(name string, data any) ([]byte, error) {
	tmpl := template.New(name)
	tmpl.Funcs(template.FuncMap{
		// Every JSON string is a YAML string.
		"quote": func(s string) string { return fmt.Sprintf("%q", s) },
		"item":  item,
		"cell":  func(s string) string { return strings.ReplaceAll(s, "|", `\|`) },
		// argo is a reference of Argo, whose braces are those of templates too.
		"argo": func(ref string) string { return "{{" + ref + "}}" },
		// part executes one of the common parts at an indentation.
		"part": func(indent int, name string, data any) (string, error) {
			var out bytes.Buffer
			if err := tmpl.ExecuteTemplate(&out, name, data); err != nil {
				return "", err
			}
			return indented(indent, out.String()), nil
		},
	})
	if _, err := tmpl.ParseFS(templates, "templates/"+name, "templates/parts/*.tmpl"); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err := tmpl.Execute(&out, data)
	return out.Bytes(), err
}

// indented moves every line to the right, and drops empty lines at both ends.
func indented(by int, text string) string {
	var b strings.Builder
	for i, line := range strings.Split(strings.Trim(text, "\n"), "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		if line != "" {
			b.WriteString(strings.Repeat(" ", by) + line)
		}
	}
	return b.String()
}

// item makes a YAML document an item of a list. Comments before it stay out.
func item(doc string) string {
	_, doc, _ = strings.Cut(doc, "---\n")
	return "  - " + strings.TrimPrefix(indented(4, strings.TrimRight(doc, "\n")), "    ")
}
