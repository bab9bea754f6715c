// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRecoverRoot begins with what a kill at each point of putting files aside and back leaves. The next run puts everything
// back, and takes away only what the killed build had made.
func TestRecoverRoot(t *testing.T) {
	const journalOfTwo = `{"Files": ["d/one", "two"], "Dirs": [{"Path": ".", "Mode": 493}, {"Path": "d", "Mode": 448}]}`
	for _, tc := range []struct {
		name string
		left map[string]string // path -> content; nil content of a directory ends in "/"
		want string
	}{
		{"nothing begun", map[string]string{"d/one": "1", "two": "2"}, "d/one two"},
		{"a directory", map[string]string{"d/one": "1", "two": "2", ".kaniko-go/": ""}, "d/one two"},
		{"an empty journal", map[string]string{"d/one": "1", "two": "2", ".kaniko-go/journal": ""}, "d/one two"},
		{"a journal", map[string]string{"d/one": "1", "two": "2", ".kaniko-go/journal": journalOfTwo}, "d/one two"},
		{"nothing put aside yet", map[string]string{"d/one": "1", "two": "2", ".kaniko-go/journal": journalOfTwo, ".kaniko-go/hidden/": ""}, "d/one two"},
		{"one put aside", map[string]string{"d/": "", "two": "2", ".kaniko-go/journal": journalOfTwo, ".kaniko-go/hidden/0": "1"}, "d/one two"},
		{"all put aside", map[string]string{".kaniko-go/journal": journalOfTwo, ".kaniko-go/hidden/0": "1", ".kaniko-go/hidden/1": "2"}, "d/one two"},
		{"in use", map[string]string{".kaniko-go/journal": journalOfTwo, ".kaniko-go/hidden/0": "1", ".kaniko-go/hidden/1": "2", ".kaniko-go/taken": "", "two": "image", "bin/sh": "image"}, "d/one two"},
		{"one put back", map[string]string{".kaniko-go/journal": journalOfTwo, "d/one": "1", ".kaniko-go/hidden/1": "2"}, "d/one two"},
		{"all put back", map[string]string{".kaniko-go/journal": journalOfTwo, "d/one": "1", "two": "2", ".kaniko-go/hidden/": ""}, "d/one two"},
		{"a rest", map[string]string{"d/one": "1", "two": "2", ".kaniko-go/pipes7/x": ""}, "d/one two"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for path, content := range tc.left {
				full := filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(path, "/") {
					if err := os.MkdirAll(full, 0o755); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			root, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = root.Close() }()
			if err := recoverRoot(root); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, filesBelow(t, dir)); diff != "" {
				t.Errorf("what the root holds (-want +got):\n%s", diff)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "two")); err != nil || string(b) != "2" {
				t.Errorf("two holds %q, %v", b, err)
			}
		})
	}
	var j journal
	if err := json.Unmarshal([]byte(journalOfTwo), &j); err != nil || len(j.Files) != 2 || len(j.Dirs) != 2 {
		t.Fatalf("the journal of this test is not one: %+v, %v", j, err)
	}
}

func filesBelow(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path, err = filepath.Rel(dir, path)
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}
