// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"io/fs"
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

// Cases of the corpus, by name. All build from the busybox base or from nothing, and what their RUNs make depends on nothing
// but the Dockerfile.
func withRun() []string {
	return strings.Fields(`arg-over-env arg-env-over-arg arg-in-history arg-env-with-quotes run-file-to-link run-deep file-heredoc-run
		file-heredoc-run-shebang file-heredoc-run-to-program file-exec-form-run ignore-mount real-go-service real-node-app real-static-site real-python-app
		real-java-maven real-database-like real-squash-and-clean real-test-stage real-init-scripts run-home run-users run-umask-and-stdin run-workdir-made
		run-nothing run-on-almost-empty-root run-remove-from-base run-recreate-directory run-directory-to-file run-rename-directory run-metadata run-times
		run-hard-links run-hard-link-to-base run-names run-order run-setuid-directories run-stage-copy-of-run run-mount-bind-from-stage run-mount-cache`)
}

func withoutRun() []string {
	return strings.Fields(`add-plain add-tar add-tar-zstd file-heredoc-copy-modes arg-inherited-args copy-context-root copy-wildcards copy-source-kinds
		copy-clamped copy-owner-from-stage copy-capability-from-stage copy-same-twice copy-odd-names copy-link-flag copy-exclude-deep
		copy-parents-chown file-heredoc-copy-mixed ignore-everything-but stage-from-stage stage-onbuild`)
}

// corpusCase is a Dockerfile of the corpus with its context, written to a directory.
type corpusCase struct {
	name    string
	runs    bool
	context string
	// env is what its options ask for.
	env map[string]string
}

// sample reads the cases that both lists name and writes their contexts.
func sample(t *testing.T) []corpusCase {
	t.Helper()
	paths, err := filepath.Glob("../corpus/testdata/cases/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	members := map[string][]txtar.File{}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range archive.Files {
			name, rest, _ := strings.Cut(m.Name, "/")
			members[name] = append(members[name], txtar.File{Name: rest, Data: m.Data})
		}
	}
	list := make([]corpusCase, 0, 60)
	for _, name := range slices.Concat(withRun(), withoutRun()) {
		if members[name] == nil {
			t.Fatalf("the corpus has no case %s", name)
		}
		list = append(list, writeCase(t, name, members[name], slices.Contains(withRun(), name)))
	}
	return list
}

func writeCase(t *testing.T, name string, members []txtar.File, runs bool) corpusCase {
	t.Helper()
	c := corpusCase{name: name, runs: runs, context: filepath.Join(testenv.Dir(t), "context"), env: map[string]string{}}
	begun := time.Now().Add(-time.Minute)
	if err := os.Mkdir(c.context, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		switch m.Name {
		case "!setup":
			defer c.setUp(t, string(m.Data), begun)
		case "!options":
			c.options(t, string(m.Data))
		default:
			path, mode := filepath.Join(c.context, m.Name), os.FileMode(0o644)
			if strings.HasSuffix(m.Name, ".sh") {
				mode = 0o755
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, m.Data, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.age(t, begun)
	return c
}

// setUp finishes a context, and gives what the script made the same time as the rest.
func (c corpusCase) setUp(t *testing.T, script string, begun time.Time) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-e", "-u", "-c", script)
	cmd.Dir, cmd.Env = c.context, append(os.Environ(), "TZ=UTC")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: setup: %v\n%s", c.name, err, out)
	}
	c.age(t, begun)
}

func (c corpusCase) options(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		verb, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "arg":
			c.env["KANIKO_BUILD_ARG"] += value + "\n"
		case "label":
			c.env["KANIKO_LABEL"] += value + "\n"
		case "target":
			c.env["KANIKO_TARGET"] = value
		case "file":
			c.env["KANIKO_DOCKERFILE"] = value
		default:
			t.Fatalf("%s: option %q cannot be given to a pod: take it off the list", c.name, line)
		}
	}
}

// age gives what was made since begun a time before the epoch.
func (c corpusCase) age(t *testing.T, begun time.Time) {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(c.context, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	then := time.Unix(1700000000, 0)
	for _, path := range slices.Backward(paths) {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&os.ModeSymlink == 0 && info.ModTime().After(begun) {
			if err := os.Chtimes(path, then, then); err != nil {
				t.Fatal(err)
			}
		}
	}
}
