// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPackageOf(t *testing.T) {
	for symbol, want := range map[string]string{
		"main.main":                         "main",
		"crypto/x509.(*Certificate).Verify": "crypto/x509",
		"github.com/google/go-containerregistry/pkg/name.NewTag":      "github.com/google/go-containerregistry/pkg/name",
		"gopkg.in/yaml%2ev3.Unmarshal":                                "gopkg.in/yaml.v3",
		"slices.SortFunc[go.shape.[]github.com/a/b.T,github.com/a.T]": "slices",
		"go:string.*":       "",
		"type:.eq.a/b.T":    "",
		"runtime.pclntab":   "",
		"_cgo_or_something": "",
	} {
		if got := packageOf(symbol); got != want {
			t.Errorf("%s: %q, want %q", symbol, got, want)
		}
	}
}

func TestCosts(t *testing.T) {
	symbols := []elf.Symbol{
		{Name: "github.com/a/b.F", Size: 2000000},
		{Name: "github.com/a/b/v2/x.F", Size: 1000000},
		{Name: "encoding/json.Marshal", Size: 4000000},
		{Name: "go:string.*", Size: 500000},
		{Name: "github.com/kaniko-go/kaniko-go/builder.(*Builder).Build", Size: 3000000},
	}
	page := string(costs(symbols, []module{{Path: "github.com/a/b"}, {Path: "github.com/a/b/v2"}}, 20_000_000))
	want := []string{
		"| Go's standard library | 4000 |", "| kaniko-go | 3000 |", "| github.com/a/b | 2000 |", "| github.com/a/b/v2 | 1000 |",
		"| Go's runtime, types and strings | 500 |", "| everything else | 0 |", "| tables of functions and lines | 9500 |",
	}
	var got []string
	for line := range strings.Lines(page) {
		if strings.HasSuffix(line, "0 |\n") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTree(t *testing.T) {
	tr := tree{"/a": {mode: anybody}, "/a/b/c": {mode: 0o755, content: []byte("x")}, "/a/link": {link: "b/c"}}
	tr.list(tr.paths())
	want := "/a/\n/a/b/\n/a/b/c\n/a/link\n/kaniko/.docker/config.json\n/kaniko/files\n/kaniko/ssl/certs/additional-ca-cert-bundle.crt\n"
	if diff := cmp.Diff(want, string(tr[own].content)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	dir := filepath.Join(t.TempDir(), "tree")
	if err := tr.write(dir); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := os.Lstat(p)
		if err == nil {
			got[strings.TrimPrefix(p, dir)] = info.Mode().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]string{"/a": "dtrwxrwxrwx", "/a/b": "drwxr-xr-x", "/a/b/c": "-rwxr-xr-x", "/a/link": "Lrwxrwxrwx", "/kaniko": "drwxr-xr-x", "/kaniko/files": "-rw-r--r--"}
	if diff := cmp.Diff(modes, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
}

// TestSBOM reads the list of this very test binary, which names no modules; that those of a real one are listed is e2e's.
func TestSBOM(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := newSBOM("x", "v1", time.Unix(0, 0).UTC(), self, []deb{{Package: "p", Version: "1", Architecture: "all"}})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{"SPDXRef-DOCUMENT": true}
	purls := map[string]bool{}
	for _, p := range doc.Packages {
		if ids[p.SPDXID] {
			t.Errorf("%s twice", p.SPDXID)
		}
		ids[p.SPDXID] = true
		purls[p.ExternalRefs[0].ReferenceLocator] = true
	}
	for _, r := range doc.Relationships {
		if !ids[r.SPDXElementID] || !ids[r.RelatedSPDXElement] {
			t.Errorf("a relationship of what is not there: %v", r)
		}
	}
	if !purls["pkg:deb/debian/p@1?arch=all"] || len(doc.Packages) < 3 {
		t.Errorf("packages are missing: %v", purls)
	}
}
