// SPDX-License-Identifier: Apache-2.0

// Command docgen writes the reference of the environment, docs/configuration.md,
// and the page for those who come from kaniko, docs/migration.md,
// from the tags of config.Config and the table of flags. Everything that is said about a variable is
// said there; only the rules that hold for all of them and the exit codes are
// written here. A test fails when the committed file is not what this writes.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/template"

	"github.com/kaniko-go/kaniko-go/step/config"
)

func main() {
	out := flag.String("o", "", "file to write; standard output if empty")
	page := flag.String("page", "configuration", "which one: configuration or migration")
	flag.Parse()
	if err := run(*page, *out); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(page, file string) error {
	pages := map[string]func() ([]byte, error){"configuration": render, "migration": renderMigration}
	if pages[page] == nil {
		return fmt.Errorf("no page %q", page)
	}
	text, err := pages[page]()
	if err != nil {
		return err
	}
	if file == "" {
		_, err = os.Stdout.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// exitCode is one line of the table that Argo's retry expressions are written from.
type exitCode struct {
	Code, Meaning, Retry string
}

func exitCodes() []exitCode {
	return []exitCode{
		{"0", "The image was built, pushed, and the results were written.", ""},
		{"1", "An internal error: a bug in kaniko-go.", "no"},
		{"2", "The configuration is wrong, or the context or the Dockerfile is missing or cannot be read.", "no"},
		{"3", "The Dockerfile is invalid or asks for what is not supported: syntax, stage graph, platform of a base, foreign or encrypted layers.", "no"},
		{"4", "An instruction failed: exit code, timeout or memory of a RUN; source or checksum of a COPY; a secret that was not found.", "no"},
		{"5", "Trouble with a registry or the network that may pass.", "yes"},
		{"6", "The registry refused: authentication, permission, a base that does not exist, an immutable tag, a quota.", "no"},
		{"7", "The environment does not permit the build: isolation, results directory, full or read-only disk.", "on another node, perhaps"},
		{"8", "Data did not match its digest.", "no"},
		{"130, 143", "Ended by SIGINT or SIGTERM.", ""},
	}
}

type section struct {
	Title     string
	Variables []config.Variable
}

// sections groups the variables, which come in order, by heading.
func sections() []section {
	var list []section
	for _, v := range config.Variables() {
		if len(list) == 0 || list[len(list)-1].Title != v.Group {
			list = append(list, section{Title: v.Group})
		}
		last := &list[len(list)-1]
		last.Variables = append(last.Variables, v)
	}
	return list
}

const page = `<!-- Generated from step/config by go generate ./step/config. Do not edit. -->

# Configuration

kaniko-go is configured by environment variables. There is no file, and kaniko's flags only set variables.

- The flag ` + "`--some-flag`" + ` is the variable ` + "`KANIKO_SOME_FLAG`" + `; [migration.md](migration.md) has the few that are not.
- An empty variable is an unset one.
- A list has one item a line. A value that parses as a JSON array of strings is that list. Empty items are dropped.
- A name that begins with ` + "`KANIKO_`" + ` and is not in this table is an error. The exceptions are what Kubernetes sets for Services
  (` + "`KANIKO_SERVICE_HOST`, `KANIKO_PORT`, `KANIKO_*_SERVICE_*`, `KANIKO_*_PORT*`" + `) and credentials (` + "`KANIKO_*_USER`, `KANIKO_*_PASSWORD`" + `).
- Everything that is wrong with the configuration is reported at once, before anything is done.
- RUN instructions see none of these variables but the proxies, only what the image and the Dockerfile set.
{{range .Sections}}
## {{.Title}}

| variable | kaniko's flag | type | default | meaning |
|---|---|---|---|---|
{{range .Variables}}| {{code .Name}} | {{code .Flag}} | {{.Type}} | {{code .Default}} | {{cell .Desc}} |
{{end}}{{end}}
## Exit codes

The last line on standard error says the cause, and in a pod the message of the container. In Argo: ` + "`retryStrategy: {expression: \"lastRetry.exitCode == '5'\"}`" + `.

| code | meaning | worth a retry |
|---|---|---|
{{range .ExitCodes}}| {{.Code}} | {{.Meaning}} | {{.Retry}} |
{{end}}`

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func render() ([]byte, error) {
	tmpl, err := template.New("page").Funcs(template.FuncMap{"code": code, "cell": cell}).Parse(page)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = tmpl.Execute(&out, struct {
		Sections  []section
		ExitCodes []exitCode
	}{sections(), exitCodes()})
	return out.Bytes(), err
}
