// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestEditsByBuildKit lets BuildKit build the project, makes an edit and lets it build again. Without an epoch it carries out the second
// time what our builds carry out; with one, ours carry out no more than that. The edits say where it is otherwise.
func TestEditsByBuildKit(t *testing.T) {
	w := newWorld(t)
	other := w.otherBase(t)
	b := testenv.NewBuildKit(t, "../../.ci/tool", w.host)
	for i, e := range edits() {
		for way, name := range []string{"times of the build", "epoch"} {
			// A sample has each edit in one way, the other tomorrow.
			if *full || (i+time.Now().YearDay())%2 == way {
				t.Run(e.name+", "+name, func(t *testing.T) { w.editedByBuildKit(t, b, e, way == 1, other) })
			}
		}
	}
}

func (w *world) editedByBuildKit(t *testing.T, b testenv.BuildKit, e edit, withEpoch bool, otherBase string) {
	t.Helper()
	if err := b.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := testenv.Dir(t)
	project().write(t, dir)
	env := map[string]string{"KANIKO_BUILD_ARG": "BASE=" + w.base, "TOKEN": "hidden", "OTHER": otherBase}
	if withEpoch {
		env["SOURCE_DATE_EPOCH"] = epoch
	}
	solve := func() []string {
		made, err := b.SolveCached(t.Context(), w.solve(t, dir, env))
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	if first := solve(); len(first) != len(everything()) {
		t.Fatalf("from nothing it carries out %q", first)
	}
	e.change(t, w, dir, env)
	theirs := asOurs(solve(), e)
	ours, note, what := e.plain, e.buildkit, "(-ours +BuildKit)"
	if withEpoch {
		ours, note = e.withEpoch, e.buildkitEpoch
		theirs = slices.DeleteFunc(theirs, func(line string) bool { return !slices.Contains(ours, line) })
		what = "(-only ours)"
	}
	ours = slices.Sorted(slices.Values(ours))
	slices.Sort(theirs)
	d := cmp.Diff(append([]string{}, ours...), append([]string{}, theirs...))
	if note == "" && d != "" {
		t.Errorf("carried out %s:\n%s", what, d)
	}
	if note != "" && d == "" {
		t.Errorf("BuildKit does the same, but the edit says %q", note)
	}
}

// asOurs spells instructions as our log does, which cuts long ones and does not replace variables.
func asOurs(lines []string, e edit) []string {
	known := slices.Concat(e.plain, e.withEpoch, everything())
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = line
		at := slices.IndexFunc(known, func(ours string) bool {
			beginning := strings.TrimSuffix(ours, "...")
			return strings.HasPrefix(line, beginning) || strings.HasPrefix(line, "RUN echo ") && strings.HasPrefix(ours, "RUN echo ")
		})
		if at >= 0 {
			out[i] = known[at]
		}
	}
	return out
}

// solve says to BuildKit what env says to ours.
func (w *world) solve(t *testing.T, dir string, env map[string]string) testenv.Solve {
	t.Helper()
	token := filepath.Join(testenv.Dir(t), "token")
	if err := os.WriteFile(token, []byte(env["TOKEN"]), 0o600); err != nil {
		t.Fatal(err)
	}
	options := map[string]string{}
	for line := range strings.SplitSeq(env["KANIKO_BUILD_ARG"], "\n") {
		name, value, _ := strings.Cut(line, "=")
		options["build-arg:"+name] = value
	}
	if at := env["SOURCE_DATE_EPOCH"]; at != "" {
		options["build-arg:SOURCE_DATE_EPOCH"] = at
	}
	if platform := env["KANIKO_PLATFORM"]; platform != "" {
		options["platform"] = platform
	}
	switch stages := env["KANIKO_NO_CACHE"]; stages {
	case "":
	case "true":
		options["no-cache"] = ""
	default:
		options["no-cache"] = stages
	}
	return testenv.Solve{Context: dir, Options: options, Secrets: []string{"id=token,src=" + token}, Destination: w.host + "/buildkit/edits:1", Rewrite: env["SOURCE_DATE_EPOCH"] != ""}
}
