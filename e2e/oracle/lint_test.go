// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
)

// ruleNames are all build checks that BuildKit has, as its source lists them.
func ruleNames(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(buildkitDir(t), "frontend", "dockerfile", "linter", "ruleset.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\t\tName: +"(\w+)",$`).FindAllSubmatch(source, -1) {
		names = append(names, string(m[1]))
	}
	if len(names) != 22 {
		t.Fatalf("BuildKit has %d checks, not 22: %v", len(names), names)
	}
	return names
}

// TestLint compares what the check mode writes with BuildKit's own lint request: for BuildKit's tests of its checks, the golden plans,
// the corpus and made-up Dockerfiles. Every check must have fired somewhere.
func TestLint(t *testing.T) {
	fired, differ := map[string]int{}, 0
	run := func(name string, f *fixture) {
		diff := compareLint(t, f, fired)
		if diff != "" {
			t.Errorf("%s\n%s\n%s", name, f.write(), diff)
		}
	}
	for name, f := range lintFixtures(t) {
		run(name, f)
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	for i := range *cases {
		f := generate(rand.New(rand.NewPCG(*seed, uint64(i)+1<<32)))
		if compareLint(t, f, fired) == "" {
			continue
		}
		small := shrink(f, func(f *fixture) bool { return compareLint(t, f, map[string]int{}) != "" })
		run(fmt.Sprintf("case %d", i), small)
		if differ++; differ == 10 {
			break
		}
	}
	for _, name := range ruleNames(t) {
		if fired[name] == 0 {
			t.Errorf("no Dockerfile has anything to say for %s", name)
		}
	}
	t.Logf("fired: %v", fired)
}

// corpusBase finds the build arguments that bases of the corpus are named by.
var corpusBase = regexp.MustCompile(`(?mi)^FROM .*?\$\{?([A-Z]+)`)

// lintFixtures are the Dockerfiles that are there already.
func lintFixtures(t *testing.T) map[string]*fixture {
	t.Helper()
	all := map[string]*fixture{}
	texts, err := filepath.Glob("../corpus/testdata/cases/*.txtar")
	if err != nil || len(texts) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, path := range texts {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range archive.Files {
			name, member, _ := strings.Cut(file.Name, "/")
			f := all[name]
			if f == nil {
				f = newFixture("")
				f.any, f.args["HTTP"] = []byte(busybox), "example.com"
				all[name] = f
			}
			switch member {
			case "Dockerfile":
				f.dockerfile = file.Data
				for _, m := range corpusBase.FindAllSubmatch(file.Data, -1) {
					f.args[string(m[1])] = "busybox"
				}
			case ".dockerignore":
				f.ignore = strings.Split(strings.TrimRight(string(file.Data), "\n"), "\n")
			}
		}
	}
	maps.DeleteFunc(all, func(_ string, f *fixture) bool {
		_, err := dockerfile.ReadIgnore(strings.NewReader(strings.Join(f.ignore, "\n")))
		return err != nil // no build gets past it, and so no check
	})
	golden, err := filepath.Glob("../../builder/internal/plan/testdata/*.txtar")
	if err != nil || len(golden) == 0 {
		t.Fatalf("no golden plans: %v", err)
	}
	for _, path := range golden {
		if archive, err := txtar.ParseFile(path); err != nil || strings.Contains(path, "bomb") || unlike.Match(txtar.Format(archive)) {
			continue
		}
		all[filepath.Base(path)] = readFixture(t, path)
	}
	files, err := filepath.Glob(filepath.Join(buildkitDir(t), "frontend", "dockerfile", "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests of BuildKit: %v", err)
	}
	for _, file := range files {
		for i, source := range literals(t, file) {
			f := newFixture(source)
			f.any = []byte(busybox)
			all[fmt.Sprintf("%s-%d", filepath.Base(file), i)] = f
		}
	}
	maps.DeleteFunc(all, func(_ string, f *fixture) bool { return len(f.dockerfile) == 0 })
	return all
}

// unlike are the requests of golden plans that are not for this test: what fixture.request does not know, and named contexts.
var unlike = regexp.MustCompile(`(?m)^(source-epoch|build-platform|context) `)

// compareLint tells how the reports differ, and counts the checks that both of them name.
func compareLint(t *testing.T, f *fixture, fired map[string]int) string {
	t.Helper()
	if len(f.contexts) > 0 {
		plain := *f
		plain.contexts = nil // BuildKit goes on to check stages that a context takes the place of
		f = &plain
	}
	want, err := theirLint(t, f)
	if err != nil {
		return "BuildKit: " + err.Error()
	}
	got, err := ourLint(t, f)
	if err != nil {
		return "ours: " + err.Error()
	}
	switch {
	case got.Error != nil && (onPurpose.MatchString(got.Error.Message) || strings.Contains(got.Error.Message, "arguments are required")), want.Error != nil && allowed(f, want.Error.Message):
		return ""
	case want.Error != nil && got.Error != nil:
		if d := compareErrors(f, reason(fmt.Errorf("%s", want.Error.Message)), reason(fmt.Errorf("%s", got.Error.Message))); d != "" {
			return d
		}
	case want.Error != nil:
		return "BuildKit refuses: " + want.Error.Message
	case got.Error != nil:
		return "we refuse: " + got.Error.Message
	}
	failed := got.Error != nil
	if d := cmp.Diff(warningLines(f, want, failed), warningLines(f, got, failed)); d != "" {
		return "warnings (-buildkit +ours):\n" + d
	}
	for _, w := range got.Warnings {
		fired[w.RuleName]++
	}
	return ""
}

// warningLines are the warnings with everything in them, as level leaves them. When something is wrong, it is chance what BuildKit knew of
// platforms by then; and it looks at the triggers of an image that is only copied from.
func warningLines(f *fixture, r *lint.LintResults, failed bool) []string {
	var lines []string
	for _, w := range r.Warnings {
		if failed && w.RuleName == "InvalidBaseImagePlatform" || len(f.images) > 0 && w.RuleName == "UndefinedVar" && strings.Contains(w.Detail, "'$A'") {
			continue
		}
		line := 0
		if ranges := w.Location.GetRanges(); len(ranges) > 0 {
			line = int(ranges[0].Start.Line)
		}
		text := fmt.Sprintf("%4d %s: %s (%s, %s)", line, w.RuleName, w.Detail, w.Description, w.URL)
		if w.RuleName != "InvalidBaseImagePlatform" { // BuildKit knows no place of an image in a mount
			text += fmt.Sprintf(" in %v", w.Location.GetRanges())
		}
		lines = append(lines, text)
	}
	return strings.Split(level(f, outcome{warnings: strings.Join(lines, "\n")}).warnings, "\n")
}

func theirLint(t *testing.T, f *fixture) (results *lint.LintResults, err error) {
	t.Helper()
	client, err := dockerui.NewClient(&daemon{f: f})
	if err != nil {
		return &lint.LintResults{Error: &lint.BuildError{Message: err.Error()}}, nil
	}
	opt := dockerfile2llb.ConvertOpt{
		Config: client.Config, Client: client, MetaResolver: &daemon{f: f},
		SourceMap: llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", f.dockerfile),
	}
	opt.SourceMap.Definition = &llb.Definition{}
	opt.BuildArgs = maps.Clone(opt.BuildArgs)
	if f.platform != "" {
		opt.TargetPlatform = &client.TargetPlatforms[0]
	}
	defer func() {
		if problem := recover(); problem != nil {
			results = &lint.LintResults{Error: &lint.BuildError{Message: fmt.Sprintf("BuildKit panics: %v", problem)}}
		}
	}()
	return dockerfile2llb.DockerfileLint(t.Context(), f.dockerfile, opt)
}

// ourLint reads our report as BuildKit's clients would.
func ourLint(t *testing.T, f *fixture) (*lint.LintResults, error) {
	t.Helper()
	report, _ := plan.CheckSource(t.Context(), "Dockerfile", f.dockerfile, f.planRequest(t)) // the error is in the report
	data, err := json.Marshal(report)
	if err != nil {
		return nil, err
	}
	results := &lint.LintResults{}
	return results, json.Unmarshal(data, results)
}
