// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
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
		"config.HostFiles", "config.HostPairs", "config.HostLists", "config.Helpers":
		return "list"
	default:
		return "word"
	}
}

// notOurs matches what else may begin with our prefix: variables that
// Kubernetes sets for a Service whose name begins with "kaniko", and the
// credentials of kaniko's environment helper.
var notOurs = regexp.MustCompile(`^KANIKO_((.+_)?SERVICE_(HOST|PORT(_.+)?)|(.+_)?PORT(_.+)?|.+_(USER|PASSWORD))$`)

// foreign looks at the names that look like variables of ours, or kaniko's, and
// are none of ours, so that a misspelt one does not silently do nothing. What
// kaniko knows and has no meaning here is noted. Where flags are used an unknown
// name is a note too: CI systems carry such names from job to job.
func (a *Arguments) foreign(known []Variable) []error {
	names := make([]string, 0, len(known))
	for _, v := range known {
		names = append(names, v.Name)
	}
	var (
		problems          []error
		unknown, features []string
	)
	for _, entry := range sortedEnviron() {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "FF_"+Prefix+"_"):
			features = append(features, name)
		case !strings.HasPrefix(name, Prefix+"_") || notOurs.MatchString(name) || slices.Contains(names, name):
		default:
			isKaniko, err := a.kanikoVariable(name, value)
			if err != nil {
				problems = append(problems, err)
			} else if !isKaniko {
				unknown = append(unknown, name)
			}
		}
	}
	if len(features) > 0 {
		a.note(strings.Join(features, ", ") + ": kaniko's feature flags have no meaning here: what they correct is always right")
	}
	if text := unknownNames(unknown, names); text != "" && a.given {
		a.note(text)
	} else if text != "" {
		problems = append(problems, errors.New(text))
	}
	return problems
}

func sortedEnviron() []string {
	list := os.Environ()
	slices.Sort(list)
	return list
}

// kanikoVariable tells whether a variable is one of kaniko's that is none of
// ours, and notes it. The error says that it cannot be done without.
func (a *Arguments) kanikoVariable(name, value string) (bool, error) {
	f, found := meaningless(name)
	yes := f.Kind != KindBool || value == "true"
	switch {
	case slices.Contains([]string{"KANIKO_PRINT_PLAN", "KANIKO_IGNORE_ASSERTIONS", "KANIKO_TELEMETRY_ENDPOINT", "KANIKO_TELEMETRY_OMIT_DOCKERFILE"}, name):
		a.note(name + " has no meaning here")
	case !found:
		return false, nil
	case f.Variable != "" && !yes:
		return true, fmt.Errorf("%s: set %s=true instead", name, f.Variable)
	case f.Refused && yes:
		return true, fmt.Errorf("%s: %s", name, f.Note)
	default:
		a.note(name + " has no meaning here: " + f.Note)
	}
	return true, nil
}

// unknownNames is one line about all of them, or "".
func unknownNames(found, names []string) string {
	if len(found) == 0 {
		return ""
	}
	for i, name := range found {
		if near, ok := suggest.Search(name, names, true); ok {
			found[i] += fmt.Sprintf(" (did you mean %s?)", near)
		}
	}
	noun := "unknown variable"
	if len(found) > 1 {
		noun += "s"
	}
	return fmt.Sprintf("%s: %s; see docs/configuration.md", noun, strings.Join(found, ", "))
}
