// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// testCase is one Dockerfile with its context. In a txtar file of testdata/cases the members of a case begin with its name:
//
//	NAME/Dockerfile, NAME/PATH   the build context
//	NAME/!setup                  a shell script that finishes the context: links, modes, times, archives
//	NAME/!options                how it is built, see options
//	NAME/!dir/DIR/PATH           another local directory, for named contexts
//	NAME/!http/PATH              a file that a web server gives; "http://${HTTP}/NAME/PATH" in the Dockerfile
//	NAME/!git/REPOSITORY/PATH    a commit of a git repository: "http://${HTTP}/NAME/REPOSITORY.git"
type testCase struct {
	name    string
	members []txtar.File // without the name of the case
	options options
}

// options are lines of "!options".
type options struct {
	opts    map[string]string // arg A=B, label A=B, target T, platform P, context NAME=VALUE as BuildKit's options
	secrets []string          // secret id=ID,src=FILE; FILE is relative to the context
	ssh     []string          // ssh ID: the agent of the world, by this id
	file    string            // file PATH: the Dockerfile's name
	phrase  string            // fails PHRASE: both must refuse, and both must say this
	fails   bool
	debian  bool // debian PACKAGES: FROM ${DEBIAN}, a directory of these packages in the context; the result depends on Debian's state
	debs    []string
}

// contextTime is the time of everything in a context that its setup does not give another one.
var contextTime = time.Unix(1700000000, 0)

func cases(t *testing.T) []testCase {
	t.Helper()
	paths, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var list []testCase
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, split(t, path, archive.Files)...)
	}
	list = append(list, tables()...)
	seen := map[string]bool{}
	for i := range list {
		c := &list[i]
		if seen[c.name] {
			t.Fatalf("two cases are called %s", c.name)
		}
		seen[c.name] = true
		if c.options, err = parseOptions(c.member("!options")); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	return list
}

// split groups the members of an archive by case.
func split(t *testing.T, path string, members []txtar.File) []testCase {
	t.Helper()
	var list []testCase
	for _, m := range members {
		name, rest, ok := strings.Cut(m.Name, "/")
		if !ok {
			t.Fatalf("%s: %s belongs to no case", path, m.Name)
		}
		if len(list) == 0 || list[len(list)-1].name != name {
			list = append(list, testCase{name: name})
		}
		c := &list[len(list)-1]
		c.members = append(c.members, txtar.File{Name: rest, Data: m.Data})
	}
	return list
}

func (c testCase) member(name string) string {
	for _, m := range c.members {
		if m.Name == name {
			return string(m.Data)
		}
	}
	return ""
}

func parseOptions(text string) (options, error) {
	o := options{opts: map[string]string{}}
	for line := range strings.Lines(text) {
		verb, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, rest, pair := strings.Cut(value, "=")
		switch verb {
		case "arg", "label", "context":
			if !pair {
				return o, fmt.Errorf("option %q", line)
			}
			o.opts[map[string]string{"arg": "build-arg", "label": "label", "context": "context"}[verb]+":"+name] = rest
		case "target", "platform":
			o.opts[verb] = value
		case "secret":
			o.secrets = append(o.secrets, value)
		case "ssh":
			o.ssh = append(o.ssh, value)
		case "file":
			o.file = value
		case "fails":
			o.fails, o.phrase = true, value
		case "debian":
			o.debian, o.debs = true, strings.Fields(value)
		default:
			return o, fmt.Errorf("option %q", line)
		}
	}
	return o, nil
}

// place is where a case has been written.
type place struct{ context, other string }

// write makes the context, and the other directories beside it. Times are whole seconds.
func (c testCase) write(t *testing.T) place {
	t.Helper()
	dir := testenv.Dir(t)
	p := place{filepath.Join(dir, "context"), filepath.Join(dir, "other")}
	for _, d := range []string{p.context, p.other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.members {
		full := filepath.Join(p.context, m.Name)
		if strings.HasPrefix(m.Name, "!") {
			full = filepath.Join(p.other, m.Name)
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(m.Name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(full, m.Data, mode); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now().Add(-time.Minute)
	if script := filepath.Join(p.other, "!setup"); c.member("!setup") != "" {
		cmd := exec.Command("/bin/sh", "-e", "-u", script)
		cmd.Dir, cmd.Env = p.context, append(os.Environ(), "OTHER="+p.other+"/!dir", "TZ=UTC", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("setup: %v\n%s", err, out)
		}
	}
	for _, d := range []string{p.context, p.other} {
		age(t, d, begun)
	}
	return p
}

// age gives everything that was made since begun the time of the corpus, deepest first.
func age(t *testing.T, dir string, begun time.Time) {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Backward(paths) {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().After(begun) {
			if err := lutimes(path, contextTime); err != nil {
				t.Fatal(err)
			}
		}
	}
}
