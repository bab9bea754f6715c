// SPDX-License-Identifier: Apache-2.0

package results

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzWrite gives destinations that somebody else has chosen. What Check lets pass is written, each result is one line but IMAGES,
// which has one for each repository, and all of it fits into Tekton's message; what it refuses leaves no file.
func FuzzWrite(f *testing.F) {
	f.Add("r.example/a:1\nr.example/b:2")
	f.Add("r.example/a:1,r.example/b:2")
	f.Add("$(id):1")
	f.Add("a,b.example/x:1")
	f.Add("\"0./0")
	f.Add("localhost:5000/x@sha256:" + strings.Repeat("0", 64))
	f.Add(strings.Repeat("r.example/long:1\n", 200))
	f.Fuzz(func(t *testing.T, lines string) {
		dir := t.TempDir()
		o := Outputs{Dir: filepath.Join(dir, "r"), NameFile: filepath.Join(dir, "names"), TagFile: filepath.Join(dir, "tags"), Limit: TektonLimit}
		destinations := strings.Split(lines, "\n")
		if err := o.Probe(); err != nil {
			t.Fatal(err)
		}
		if err := o.Check(destinations); err != nil {
			if err := o.Write(Image{Digest: digest(), Destinations: []string{"\n"}}); err == nil {
				t.Fatal("a line break was written as a destination")
			}
			if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
				t.Fatalf("left: %v, %v", left, err)
			}
			return
		}
		if err := o.Write(Image{Digest: digest(), Destinations: destinations}); err != nil {
			t.Fatalf("checked, and then: %v", err)
		}
		got := read(t, o.Dir)
		total := 0
		for name, value := range got {
			total += len(name) + len(value)
			if name != "IMAGES" && strings.ContainsAny(value, "\n\r") {
				t.Errorf("%s is %q", name, value)
			}
		}
		// Chains splits it at commas, too.
		for image := range strings.SplitSeq(got["IMAGES"], "\n") {
			if !strings.HasSuffix(image, "@"+digest().String()) || strings.ContainsAny(image, ", \t\"'$`") {
				t.Errorf("an image of IMAGES is %q", image)
			}
		}
		if total > TektonLimit || got["IMAGE_DIGEST"] != digest().String() || got["IMAGE_URL"] != destinations[0] {
			t.Errorf("%d bytes: %q", total, got)
		}
	})
}

// FuzzCause writes causes with text of a hostile build in them: what is there is one line of at most maxCause bytes, and the
// beginning of what was to be said.
func FuzzCause(f *testing.F) {
	f.Add("a\nb")
	f.Add("\xff" + strings.Repeat("ü", 3000))
	f.Fuzz(func(t *testing.T, cause string) {
		log := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(log, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := WriteCause(log, cause); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Join(strings.Fields(cause), " ")
		if len(got) > maxCause || len(got) < min(len(want), maxCause-3) || !strings.HasPrefix(want, string(got)) || strings.ContainsAny(string(got), "\n\r") {
			t.Fatalf("%d bytes: %q", len(got), got)
		}
	})
}
