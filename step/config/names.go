// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"
	"github.com/moby/buildkit/util/suggest"
)

// Variable describes one variable to those who generate documents from it.
type Variable struct {
	// Group is the heading below which the reference shows it.
	Group string
	Name  string
	// Flag is kaniko's flag of the same meaning, with dashes; "" if there is none.
	Flag string
	// Type is for people: text, word (one of a few), true or false, number, duration, size or list.
	Type    string
	Default string
	Desc    string
	// Param is the parameter of the Task that sets the variable; "" if none does.
	Param string
	// Secret values are never printed.
	Secret bool
}

// Variables lists all variables in the order of the reference.
func Variables() []Variable { return (&Config{}).variables() }

// fieldSep cannot occur in a struct tag.
const fieldSep = "\x00"

func (c *Config) variables() []Variable {
	const format = `{{range .}}{{usage_key .}}` + fieldSep + `{{.Field.Type}}` + fieldSep + `{{usage_default .}}` + fieldSep +
		`{{usage_description .}}` + fieldSep + `{{.Tags.Get "flag"}}` + fieldSep + `{{.Tags.Get "param"}}` + fieldSep +
		`{{.Tags.Get "secret"}}{{"\n"}}{{end}}`
	var list []Variable
	for _, g := range c.groups() {
		var out strings.Builder
		if err := envconfig.Usagef(g.prefix, g.spec, &out, format); err != nil {
			// The template and the struct are both constants of this package.
			panic(fmt.Sprintf("config: %v", err))
		}
		for line := range strings.Lines(out.String()) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), fieldSep)
			v := Variable{
				Group: g.title, Name: f[0], Type: typeName(f[1]), Default: f[2], Desc: f[3],
				Param: f[5], Secret: f[6] == "true",
			}
			// envconfig names a field with an envconfig tag by that tag alone.
			if g.prefix != "" && f[4] != "-" {
				v.Flag = f[4]
				if v.Flag == "" {
					v.Flag = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v.Name, Prefix+"_"), "_", "-"))
				}
				v.Flag = "--" + v.Flag
			}
			list = append(list, v)
		}
	}
	return list
}

// typeName says what a value of a Go type looks like in the environment.
func typeName(goType string) string {
	switch goType {
	case "string":
		return "text"
	case "bool":
		return "true or false"
	case "int", "config.Epoch":
		return "number"
	case "time.Duration":
		return "duration"
	case "config.Size":
		return "size"
	case "config.List", "config.Pairs", "config.Hosts", "config.Ulimits", "config.Secrets", "config.Agents",
		"config.HostFiles", "config.HostPairs", "config.HostLists":
		return "list"
	default:
		return "word"
	}
}

// notOurs matches what else may begin with our prefix: variables that
// Kubernetes sets for a Service whose name begins with "kaniko", and the
// credentials of kaniko's environment helper.
var notOurs = regexp.MustCompile(`^KANIKO_((.+_)?SERVICE_(HOST|PORT(_.+)?)|(.+_)?PORT(_.+)?|.+_(USER|PASSWORD))$`)

// unknown reports the names that look like variables of ours and are none, so
// that a misspelt one does not silently do nothing.
func unknown(known []Variable) []error {
	names := make([]string, 0, len(known))
	for _, v := range known {
		names = append(names, v.Name)
	}
	var found []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, Prefix+"_") && !notOurs.MatchString(name) && !slices.Contains(names, name) {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	for i, name := range found {
		if slices.Contains(later(), name) {
			found[i] += " (not supported yet)"
		} else if near, ok := suggest.Search(name, names, true); ok {
			found[i] += fmt.Sprintf(" (did you mean %s?)", near)
		}
	}
	noun := "unknown variable"
	if len(found) > 1 {
		noun += "s"
	}
	return []error{fmt.Errorf("%s: %s; see docs/configuration.md", noun, strings.Join(found, ", "))}
}

// later lists the names that kaniko or our own contract has and this version
// does not. They deserve a better answer than a guess at a misspelling.
func later() []string {
	return []string{
		"KANIKO_ANNOTATION", "KANIKO_CACHE", "KANIKO_CACHE_COPY_LAYERS", "KANIKO_CACHE_DIR",
		"KANIKO_CACHE_REPO", "KANIKO_CACHE_RUN_LAYERS", "KANIKO_CACHE_TTL", "KANIKO_CLEANUP", "KANIKO_COMPRESSED_CACHING",
		"KANIKO_CREDENTIAL_HELPERS", "KANIKO_GIT", "KANIKO_IGNORE_VAR_RUN", "KANIKO_IMAGE",
		"KANIKO_IMAGE_FS_EXTRACT_RETRY", "KANIKO_MATERIALIZE", "KANIKO_NO_CACHE", "KANIKO_NO_PUSH_CACHE",
		"KANIKO_PRE_CLEANUP", "KANIKO_PRESERVE_CONTEXT", "KANIKO_PRINT_PLAN", "KANIKO_PUSH_IGNORE_IMMUTABLE_TAG_ERRORS",
		"KANIKO_SINGLE_SNAPSHOT", "KANIKO_SNAPSHOT_MODE", "KANIKO_USE_NEW_RUN",
	}
}
