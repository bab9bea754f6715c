// SPDX-License-Identifier: Apache-2.0

package config

//go:generate go run ./internal/docgen -page migration -o ../../docs/migration.md

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/util/suggest"
)

// Command is what a command line asks for before any configuration is looked at.
type Command string

// The commands. Those that only choose a mode, push, index and the warmer's
// name, are CommandRun.
const (
	CommandRun     Command = ""
	CommandHelp    Command = "help"
	CommandVersion Command = "version"
	CommandLogin   Command = "login"
)

// Arguments is a command line in kaniko's form, taken apart. Each flag stands
// for a variable: it takes the place of what the environment says, and where it
// is repeated and the variable is a list, its values are the items.
type Arguments struct {
	Command Command
	// Registry is the argument of login.
	Registry string
	// Username, Password and PasswordStdin are the flags of login.
	Username, Password string
	PasswordStdin      bool

	given  bool
	warmer bool
	path   string // what push pushes
	values map[string][]string
	named  map[string]string // variable -> the flag that set it
	notes  []string
	// known are the flags that may follow, once they were needed.
	known []Flag
	// inherited are the variables that are not set by flags.
	inherited map[string]bool
}

// ParseArguments takes a command line apart; argv[0] is the name of the
// program, which does something else if it is "warmer". It neither reads nor
// changes the environment. The error joins one line for each problem.
func ParseArguments(argv []string) (*Arguments, error) {
	a := &Arguments{values: map[string][]string{}, named: map[string]string{}}
	if len(argv) == 0 {
		return a, nil
	}
	a.warmer = filepath.Base(argv[0]) == "warmer"
	var (
		problems   []error
		positional []string
	)
	for rest := argv[1:]; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			positional, rest = append(positional, rest...), nil
		case len(arg) > 1 && arg[0] == '-':
			var err error
			if rest, err = a.flag(arg, rest); err != nil {
				problems = append(problems, err)
			}
		case len(positional) == 0 && !a.warmer && a.command(arg):
			positional = append(positional, arg)
		case len(positional) > 0 || arg != "":
			positional = append(positional, arg)
		}
	}
	a.given = len(argv) > 1
	problems = append(problems, a.positional(positional))
	return a, errors.Join(problems...)
}

// command tells whether a word is a subcommand, and remembers it.
func (a *Arguments) command(word string) bool {
	switch word {
	case "push":
		a.set("KANIKO_MODE", "push", string(ModePush), false)
	case "index":
		a.set("KANIKO_MODE", "index", string(ModeIndex), false)
	case "login":
		a.Command = CommandLogin
	case "version":
		a.Command = CommandVersion
	case "help":
		a.Command = CommandHelp
	default:
		return false
	}
	return true
}

// positional checks what is no flag: the command and its argument.
func (a *Arguments) positional(words []string) error {
	if len(words) == 0 {
		return nil
	}
	wanted := ""
	switch {
	case a.Command == CommandHelp || a.Command == CommandVersion:
		return nil
	case words[0] == "index" && !a.warmer:
		// Where an array parameter is put into a command line, items may be empty.
		for _, ref := range words[1:] {
			a.set("KANIKO_IMAGE", "image", ref, true)
		}
		return nil
	case words[0] == "push" && !a.warmer:
		wanted = "the OCI layout or tarball to push"
	case a.Command == CommandLogin:
		wanted = "the registry"
	default:
		return fmt.Errorf("unexpected argument %s; every setting is a flag or a variable, and a boolean flag is written --name=true", show(words[0]))
	}
	if len(words) != 2 {
		return fmt.Errorf("%s takes one argument, %s", words[0], wanted)
	}
	if a.Command == CommandLogin {
		a.Registry = words[1]
		return checkHost(words[1])
	}
	a.path = words[1]
	return nil
}

// flag reads one flag, whose value may be the next argument, and returns what follows.
func (a *Arguments) flag(arg string, rest []string) ([]string, error) {
	f, value, attached, err := a.find(arg)
	if err != nil {
		return rest, err
	}
	switch {
	case attached:
	case f.Kind == KindBool:
		value = "true"
	case len(rest) == 0:
		return rest, fmt.Errorf("--%s: the value is missing", f.Name)
	default:
		value, rest = rest[0], rest[1:]
	}
	return rest, a.take(f, value)
}

// find looks a flag up; attached says that a value is part of the argument.
func (a *Arguments) find(arg string) (f Flag, value string, attached bool, err error) {
	flags := a.flags()
	if long, found := strings.CutPrefix(arg, "--"); found {
		name, value, attached := strings.Cut(long, "=")
		if i := slices.IndexFunc(flags, func(f Flag) bool { return f.Name == name }); i >= 0 {
			return flags[i], value, attached, nil
		}
		return Flag{}, "", false, unknownFlag(name, flags)
	}
	short, value := arg[1:2], arg[2:]
	// -context is not -c with the value "ontext".
	name, _, _ := strings.Cut(arg[1:], "=")
	if len(name) > 1 && slices.ContainsFunc(flags, func(f Flag) bool { return f.Name == name }) {
		return Flag{}, "", false, fmt.Errorf("-%s: write --%s", name, name)
	}
	if i := slices.IndexFunc(flags, func(f Flag) bool { return f.Short == short }); i >= 0 {
		v, equal := strings.CutPrefix(value, "=")
		return flags[i], v, equal || value != "", nil
	}
	return Flag{}, "", false, fmt.Errorf("unknown flag -%s; --help lists the flags", short)
}

func unknownFlag(name string, flags []Flag) error {
	names := make([]string, len(flags))
	for i, f := range flags {
		names[i] = f.Name
	}
	if near, ok := suggest.Search(name, names, false); ok {
		return fmt.Errorf("unknown flag --%s (did you mean --%s?); --help lists the flags", name, near)
	}
	return fmt.Errorf("unknown flag --%s; --help lists the flags", name)
}

// flags are those that the command line may have: the warmer's and login's are not the executor's.
func (a *Arguments) flags() []Flag {
	switch {
	case a.Command == CommandLogin:
		return append(LoginFlags(), generalFlags()...)
	case a.known != nil:
	case a.warmer:
		a.known = warmerFlags()
	default:
		a.known = append(Flags(), generalFlags()...)
	}
	return a.known
}

// take is one flag with its value.
func (a *Arguments) take(f Flag, value string) error {
	yes := true
	if f.Kind == KindBool {
		b, err := strconv.ParseBool(value)
		if err != nil && value != "" {
			return problem("--"+f.Name, value, "write true or false")
		}
		yes = b
		value = strconv.FormatBool(b)
	}
	switch {
	case f.apply != nil:
		f.apply(a, value)
	case f.Refused && yes && value != "":
		return fmt.Errorf("--%s: %s", f.Name, f.Note)
	case f.Variable == "":
		a.note(fmt.Sprintf("--%s has no meaning here: %s", f.Name, f.Note))
	default:
		a.set(f.Variable, f.Name, value, f.Kind == KindList)
	}
	return nil
}

func (a *Arguments) set(variable, flag, value string, list bool) {
	if list {
		a.values[variable] = append(a.values[variable], value)
	} else {
		a.values[variable] = []string{value}
	}
	a.named[variable] = "--" + flag
}

func (a *Arguments) note(text string) {
	if !slices.Contains(a.notes, text) {
		a.notes = append(a.notes, text)
	}
}

// Load is the function Load after the flags have been put into the environment
// of the process, where the same program, executed again, finds them too. With
// flags an unknown variable is not an error but a note.
func (a *Arguments) Load() (*Config, error) {
	if err := a.apply(); err != nil {
		return nil, err
	}
	c, err := a.read()
	if err != nil && a.given {
		err = errors.New(a.inFlags(err.Error()))
	}
	return c, err
}

// apply edits the environment, the one place where everything else looks.
func (a *Arguments) apply() error {
	a.defaults()
	a.inherited = map[string]bool{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		a.inherited[name] = value != ""
	}
	for variable, values := range a.values {
		value := values[len(values)-1]
		if a.isList(variable) {
			value = encodeList(added(variable, values))
		}
		if err := os.Setenv(variable, value); err != nil { //nolint:forbidigo // a flag is a way to set its variable
			return fmt.Errorf("%s: %w", a.named[variable], err)
		}
	}
	return nil
}

// added is what flags make of a list. Some add to what the variable says: a Task has the image in a variable and leaves the flags to
// its user, who does not mean to take the image back with one more destination.
func added(variable string, values []string) []string {
	switch variable {
	case "KANIKO_DESTINATION", "KANIKO_BUILD_ARG", "KANIKO_LABEL", "KANIKO_ANNOTATION":
	default:
		return values
	}
	before, err := items(os.Getenv(variable))
	if err != nil {
		return values // it is no list at all
	}
	if n := len(before) - len(values); n >= 0 && slices.Equal(before[n:], values) {
		return before // the same program, executed again, finds what it has put there
	}
	return append(before, values...)
}

func (a *Arguments) isList(variable string) bool {
	return slices.ContainsFunc(Variables(), func(v Variable) bool { return v.Name == variable && v.Type == "list" })
}

// encodeList writes items such that they come out of items as they are, line breaks included.
func encodeList(values []string) string {
	values = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return strings.TrimSpace(s) == "" })
	if len(values) == 0 {
		return ""
	}
	text, _ := json.Marshal(values) // strings cannot fail
	return string(text)
}

// defaults are what kaniko's programs do when a flag is not given and this one does not.
func (a *Arguments) defaults() {
	if a.warmer {
		a.set("KANIKO_MODE", "mode", string(ModeWarm), false)
		if a.missing("KANIKO_CACHE_DIR") {
			a.set("KANIKO_CACHE_DIR", "cache-dir", kanikoCacheDir, false)
		}
	}
	if a.path != "" {
		variable, flag := "KANIKO_TAR_PATH", "tar-path"
		if isDir(a.path) {
			variable, flag = "KANIKO_OCI_LAYOUT_PATH", "oci-layout-path"
		}
		a.set(variable, flag, a.path, false)
	}
	if v := a.values["KANIKO_CACHE"]; len(v) == 1 && v[0] == "true" && a.missing("KANIKO_CACHE_DIR") && isDir(kanikoCacheDir) {
		a.set("KANIKO_CACHE_DIR", "cache-dir", kanikoCacheDir, false)
	}
	if _, set := a.values["KANIKO_SKIP_DEFAULT_REGISTRY_FALLBACK"]; set && a.missing("KANIKO_REGISTRY_MIRROR") && a.missing("KANIKO_REGISTRY_MAP") {
		a.note("--skip-default-registry-fallback has no meaning here: there are no mirrors")
		a.set("KANIKO_SKIP_DEFAULT_REGISTRY_FALLBACK", "skip-default-registry-fallback", "", false)
	}
}

// kanikoCacheDir is the default of kaniko's --cache-dir.
const kanikoCacheDir = "/cache"

func (a *Arguments) missing(variable string) bool {
	return encodeList(a.values[variable]) == "" && os.Getenv(variable) == ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

var ourName = regexp.MustCompile(`\bKANIKO_[A-Z_]+\b`)

// inFlags says the names of flags in place of those of variables to people who
// use flags, but for variables that they did set.
func (a *Arguments) inFlags(text string) string {
	flags := map[string]string{}
	for _, f := range Flags() {
		if f.Variable != "" && flags[f.Variable] == "" {
			flags[f.Variable] = "--" + f.Name
		}
	}
	return ourName.ReplaceAllStringFunc(text, func(name string) string {
		if flag, set := a.named[name]; set {
			return flag
		}
		if a.inherited[name] || flags[name] == "" {
			return name
		}
		return flags[name]
	})
}

// WantsInPlace tells, before anything is loaded, whether a build without
// namespaces is asked for by KANIKO_ISOLATION or its flag: the process must
// know that before it makes any.
func WantsInPlace(argv []string) bool {
	wanted := os.Getenv(Prefix + "_ISOLATION")
	for i, arg := range argv {
		if value, found := strings.CutPrefix(arg, "--isolation="); found {
			wanted = value
		} else if arg == "--isolation" && i+1 < len(argv) {
			wanted = argv[i+1]
		}
	}
	return wanted == string(IsolationInPlace)
}

// Notes are lines for the log, after Load: flags and variables of kaniko that
// have no meaning here, and variables that are not known.
func (a *Arguments) Notes() []string { return a.notes }

// LoginFile is the file that login writes to: that of DOCKER_CONFIG, or the one in HOME; "" if neither is set.
func LoginFile() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	if home := os.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".docker", "config.json")
	}
	return ""
}
