// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	cases = flag.Int("cases", 3000, "how many random Dockerfiles")
	seed  = flag.Uint64("seed", 0, "what makes them; 0 for the time")
)

// TestKept compares the golden plans' Dockerfiles and the cases kept here.
func TestKept(t *testing.T) {
	files, err := filepath.Glob("../../builder/internal/plan/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden plans: %v", err)
	}
	kept, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(files, kept...) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			if strings.Contains(name, "bomb") {
				t.Skip("BuildKit itself has no bound on these")
			}
			check(t, readFixture(t, name))
		})
	}
}

// TestBuildKitsOwn compares the Dockerfiles in BuildKit's tests, which are read where the
// Go command keeps the module.
func TestBuildKitsOwn(t *testing.T) {
	dir := filepath.Join(buildkitDir(t), "frontend", "dockerfile")
	found := 0
	files, err := filepath.Glob(filepath.Join(dir, "parser", "testfiles*", "*", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found++
		compareText(t, filepath.Base(filepath.Dir(name)), string(source))
	}
	tests, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tests {
		for i, source := range literals(t, name) {
			found++
			compareText(t, fmt.Sprintf("%s-%d", filepath.Base(name), i), source)
		}
	}
	if found < 300 {
		t.Errorf("found only %d Dockerfiles", found)
	}
}

// buildkitDir is where the Go command keeps BuildKit's source.
func buildkitDir(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/buildkit").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// literals are the strings in a Go file that look like Dockerfiles.
func literals(t *testing.T, name string) []string {
	t.Helper()
	file, err := goparser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(lit.Value)
		if err == nil && strings.Contains(text, "\n") && looksRight.MatchString(text) && !strings.Contains(text, "nanoserver") && !strings.Contains(text, "git@") && !strings.Contains(text, "ssh://") {
			found = append(found, text)
		}
		return true
	})
	return found
}

var looksRight = regexp.MustCompile(`(?mi)^\s*FROM\s+\S+`)

func compareText(t *testing.T, name, source string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		f := newFixture(source)
		f.any = []byte(busybox)
		check(t, f)
	})
}

func check(t *testing.T, f *fixture) {
	t.Helper()
	diff, refused := compare(t, f)
	switch {
	case diff != "":
		t.Errorf("%s\n%s", diff, f.write())
	case refused != "":
		t.Skip("refused on purpose: " + refused)
	}
}

// TestRandom compares made-up Dockerfiles. What differs is shrunk and kept.
func TestRandom(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", *seed)
	accepted, failed, differ := 0, 0, 0
	for i := range *cases {
		f := generate(rand.New(rand.NewPCG(*seed, uint64(i))))
		diff, refused := compare(t, f)
		if diff == "" {
			if refused == "" && ours(t, f).err == nil {
				accepted++
			} else {
				failed++
			}
			continue
		}
		differ++
		small := shrink(f, func(f *fixture) bool {
			diff, _ := compare(t, f)
			return diff != ""
		})
		diff, _ = compare(t, small)
		name := filepath.Join("testdata", fmt.Sprintf("random-%d-%d.txtar", *seed, i))
		if err := os.WriteFile(name, append([]byte("Found by TestRandom.\n"), small.write()...), 0o600); err != nil {
			t.Error(err)
		}
		t.Errorf("case %d, kept as %s\n%s\n%s", i, name, small.write(), diff)
		if differ == 10 {
			t.Fatal("enough")
		}
	}
	t.Logf("%d cases: %d are the same plan, %d are refused by both or on purpose", *cases, accepted, failed)
	if accepted < *cases/3 {
		t.Errorf("only %d of %d random Dockerfiles are valid: they test too little", accepted, *cases)
	}
}

// shrink drops lines and parts of the request as long as something differs.
func shrink(f *fixture, differs func(*fixture) bool) *fixture {
	for again := true; again; {
		again = false
		lines := strings.SplitAfter(string(f.dockerfile), "\n")
		for size := len(lines) / 2; size >= 1; size /= 2 {
			for at := 0; at+size <= len(lines); {
				smaller := *f
				rest := slices.Delete(slices.Clone(lines), at, at+size)
				smaller.dockerfile = []byte(strings.Join(rest, ""))
				if len(smaller.dockerfile) < len(f.dockerfile) && differs(&smaller) {
					f, lines, again = &smaller, rest, true
				} else {
					at++
				}
			}
		}
		for _, drop := range []func(*fixture){
			func(s *fixture) { s.target = "" }, func(s *fixture) { s.platform = "" }, func(s *fixture) { s.epoch = "" },
			func(s *fixture) { s.args = nil }, func(s *fixture) { s.labels = nil }, func(s *fixture) { s.contexts = nil },
			func(s *fixture) { s.ignore = nil },
		} {
			smaller := *f
			drop(&smaller)
			if string(smaller.write()) != string(f.write()) && differs(&smaller) {
				f, again = &smaller, true
			}
		}
	}
	return f
}

// compare runs both sides. It gives what differs, or why we refuse on purpose what BuildKit accepts.
func compare(t *testing.T, f *fixture) (diff, refused string) {
	t.Helper()
	want, got := theirs(t, f), ours(t, f)
	switch {
	case got.err != nil && onPurpose.MatchString(got.err.Error()):
		return "", got.err.Error()
	case want.err != nil && allowed(f, want.err.Error()):
		return "", want.err.Error()
	case want.err != nil && got.err != nil:
		return compareErrors(f, reason(want.err), reason(got.err)), ""
	case want.err != nil:
		return "BuildKit refuses: " + want.err.Error(), ""
	case got.err != nil:
		return "we refuse: " + got.err.Error(), ""
	}
	want, got = level(f, want), level(f, got)
	for _, part := range []struct{ name, want, got string }{
		{"configuration", want.config, got.config},
		{"operations", want.graph, got.graph},
		{"warnings", want.warnings, got.warnings},
	} {
		if d := cmp.Diff(strings.Split(part.want, "\n"), strings.Split(part.got, "\n")); d != "" {
			return part.name + " (-buildkit +ours):\n" + d, ""
		}
	}
	return "", ""
}

// level takes away what differs on purpose and everywhere: BuildKit leaves out the platform of a stage that a
// context without an image takes the place of, and reports the platform of an image in a mount
// once for each mount, without a line. It also looks up what the triggers of an image name that
// is only copied from, which here is always alpine, and looks into stages that a context takes the place of.
func level(f *fixture, o outcome) outcome {
	if noPlatform.MatchString(o.config) {
		o.config = platformLines.ReplaceAllString(o.config, "")
	}
	// Of a stage that it first reaches through a trigger it names the base in full, and says nothing of what that stage copies from.
	late := bytes.Contains(f.dockerfile, []byte("ONBUILD"))
	var warnings []string
	for _, warning := range strings.Split(o.warnings, "\n") {
		platform := strings.Contains(warning, "InvalidBaseImagePlatform")
		if len(f.contexts) > 0 || platform && (strings.Contains(warning, "Base image alpine was") || late) {
			continue
		}
		if platform {
			warning = warning[4:]
		}
		warning = anySuggestion.ReplaceAllString(warning, "(did you mean")
		warnings = append(warnings, warning)
	}
	warnings = slices.DeleteFunc(warnings, func(w string) bool { return w == "" })
	slices.Sort(warnings)
	o.warnings = strings.Join(slices.Compact(warnings), "\n")
	return o
}

var (
	noPlatform    = regexp.MustCompile(`"diff_ids": null`)
	platformLines = regexp.MustCompile(`(?m)^ +"(architecture|variant|type)": .*\n`)
)

// onPurpose are errors that docs/dockerfile.md gives reasons for.
var onPurpose = regexp.MustCompile(`is not supported|security\.insecure is not allowed|is too large|the limit is` +
	`|heredoc name .* cannot be a file name|invalid SOURCE_DATE_EPOCH: |FROM isn't allowed as an ONBUILD trigger|NUL byte` +
	`|invalid context name|checksum requires HTTP|invalid stage index|Bad:::|failed to parse check options|circular dependency detected on stage|mount target`)

// allowed are errors of BuildKit alone, for what we accept.
func allowed(f *fixture, text string) bool {
	for key := range f.contexts {
		name, _, _ := strings.Cut(key, "::")
		if regexp.MustCompile(`(?mi)^\s*FROM\s.*\sAS\s+` + regexp.QuoteMeta(name) + `\s*$`).Match(f.dockerfile) {
			return true // it reads a stage that a context takes the place of, and what that names
		}
	}
	if len(f.contexts) > 0 && strings.Contains(text, "failed to parse stage name") {
		return true
	}
	if len(f.images) > 0 && (strings.Contains(text, "(library/Bad) must be lowercase") || triggerRules.ReplaceAllString(text, "") == "lint violation found for rules:") {
		return true // what only the triggers of an image name that is only copied from
	}
	_, err := strconv.Atoi(f.target)
	return err == nil && strings.Contains(text, "target stage") // by index
}

// compareErrors wants BuildKit's words in ours, and a suggestion where BuildKit makes one, though of
// equally near names it may choose another. Of several names that are no images it may complain of any.
func compareErrors(f *fixture, want, got string) string {
	const badName = "failed to parse stage name"
	if strings.HasPrefix(want, badName) && strings.HasPrefix(got, badName) {
		return ""
	}
	if len(f.images) > 0 { // it looks at the triggers of an image that is only copied from
		want, got = triggerRules.ReplaceAllString(want, ""), triggerRules.ReplaceAllString(got, "")
	}
	words := suggestion.ReplaceAllString(want, "")
	if words == want && strings.Contains(got, want) || words != want && strings.Contains(got, words+" (did you mean ") {
		return ""
	}
	return "error (-buildkit +ours):\n-" + want + "\n+" + got
}

var (
	// Of names that are equally near BuildKit takes any.
	anySuggestion = regexp.MustCompile(`\(did you mean [^)]*\?\)`)
	suggestion    = regexp.MustCompile(` \(did you mean [^)]*\?\)$`)
	triggerRules  = regexp.MustCompile(`,? (InvalidBaseImagePlatform|UndefinedVar)\b`)
	place         = regexp.MustCompile(`^Dockerfile(:\d+(-\d+)?)?: `)
	rules         = regexp.MustCompile(`rules: (.*)$`)
)

// reason is an error without its place.
func reason(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", `\n`)
	text = place.ReplaceAllString(text, "")
	text = regexp.MustCompile(`^dockerfile parse error on line \d+: `).ReplaceAllString(text, "")
	return rules.ReplaceAllStringFunc(text, func(list string) string {
		names := strings.Split(strings.TrimPrefix(list, "rules: "), ", ")
		slices.Sort(names)
		return "rules: " + strings.Join(names, ", ")
	})
}
