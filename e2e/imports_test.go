// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kaniko-go/kaniko-go"

// pkg is what go list says of a package; Deps are direct and indirect.
type pkg struct {
	ImportPath    string
	Imports, Deps []string
	TestImports   []string
	XTestImports  []string
}

func goList(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Deps,TestImports,XTestImports"}, patterns...)...)
	cmd.Dir = ".."
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, errs.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// product is what the binary is made of; the rest generates or tests.
func product(importPath string) bool {
	for _, top := range []string{"step", "builder", "results"} {
		if importPath == module+"/"+top || strings.HasPrefix(importPath, module+"/"+top+"/") {
			return true
		}
	}
	return false
}

// TestBinaryReachesNoOrchestrator: the packages of Tekton and Argo would make
// the binary three to five times as large.
func TestBinaryReachesNoOrchestrator(t *testing.T) {
	seen := 0
	for _, p := range goList(t, "./...") {
		if !product(p.ImportPath) {
			continue
		}
		seen++
		for _, dep := range slices.Concat(p.Deps, p.TestImports, p.XTestImports) {
			for _, bad := range []string{"github.com/tektoncd/", "github.com/argoproj/", "k8s.io/"} {
				if strings.HasPrefix(dep, bad) {
					t.Errorf("%s reaches %s", p.ImportPath, dep)
				}
			}
		}
		// BuildKit's packages reach these two; ours have better.
		for _, bad := range []string{"github.com/sirupsen/logrus", "github.com/pkg/errors"} {
			if slices.Contains(p.Imports, bad) {
				t.Errorf("%s imports %s", p.ImportPath, bad)
			}
		}
	}
	if seen == 0 {
		t.Fatal("there are no packages to look at")
	}
}

// TestImportsPointOneWay holds who may import whom among the packages of the
// product. Tests may import more.
func TestImportsPointOneWay(t *testing.T) {
	const internal = "builder/internal/"
	leaves := []string{"step/config", "results", internal + "dockerfile", internal + "tree", "builder/registry"}
	seen := 0
	for _, p := range goList(t, "./...") {
		if !product(p.ImportPath) || strings.Contains(p.ImportPath, "/internal/docgen") {
			continue
		}
		seen++
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, dep := range p.Imports {
			to, ours := strings.CutPrefix(dep, module+"/")
			switch {
			case !ours:
				if from == internal+"plan" && impure(dep) {
					t.Errorf("%s is to be pure and imports %s", from, dep)
				}
			case slices.Contains(leaves, from):
				t.Errorf("%s imports %s, and is to import none of ours", from, to)
			case from == "step":
				if !slices.Contains([]string{"step/config", "builder", "builder/registry", "builder/isolation", "results"}, to) {
					t.Errorf("step imports %s", to)
				}
			case strings.HasPrefix(to, "step") || to == "results" || to == "builder":
				t.Errorf("%s imports %s, which is above it", from, to)
			case from == internal+"cache" && to == "builder/registry":
				// One of the places that it keeps records in.
			case strings.HasPrefix(from, internal) && !strings.HasPrefix(to, internal):
				t.Errorf("%s imports %s, which is above it", from, to)
			case !product(dep):
				t.Errorf("%s imports %s, which is not part of the product", from, to)
			}
		}
	}
	if seen == 0 {
		t.Fatal("there are no packages to look at")
	}
}

// impure lists what does I/O.
func impure(dep string) bool {
	return dep == "os" || strings.HasPrefix(dep, "os/") || dep == "net" || strings.HasPrefix(dep, "net/http") || dep == "syscall"
}

// TestConfigIsTheOnlyReaderOfTheEnvironment looks at what every product
// package calls. Standard packages that read it for themselves, such as
// net/http for proxies, cannot be kept from it.
func TestConfigIsTheOnlyReaderOfTheEnvironment(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "grep", "-rnE", "--include=*.go", "--exclude=*_test.go",
		`os\.(Getenv|LookupEnv|Setenv|Unsetenv|Clearenv|ExpandEnv)\(|syscall\.Getenv\(|unix\.Getenv\(`,
		"../step", "../builder", "../results").Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) { // 1: nothing found
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "../step/config/") {
			found = true
			continue
		}
		t.Errorf("reads or changes the environment: %s", strings.TrimSpace(line))
	}
	if !found {
		t.Error("not even step/config was found to read the environment: the pattern is wrong")
	}
}
