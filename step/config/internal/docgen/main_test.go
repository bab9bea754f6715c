// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPagesAreCurrent(t *testing.T) {
	for name, render := range map[string]func() ([]byte, error){"configuration.md": render, "migration.md": renderMigration} {
		want, err := render()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile("../../../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("docs/%s is stale; run go generate ./step/config (-want +got):\n%s", name, diff)
		}
	}
}

// TestKanikoFlags: every flag of the active fork, its deprecated ones, and those of its warmer and login are on the page.
func TestKanikoFlags(t *testing.T) {
	page, err := renderMigration()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(`
		dockerfile context context-sub-path bucket destination target build-arg label annotation secret custom-platform snapshot-mode
		single-snapshot use-new-run cache cache-repo cache-dir cache-ttl cache-copy-layers cache-run-layers no-push-cache compressed-caching
		compression compression-level image-format reproducible no-push tar-path oci-layout-path digest-file image-name-with-digest-file
		image-name-tag-with-digest-file git ignore-path ignore-var-run pre-cleanup cleanup preserve-context materialize kaniko-dir force dryrun
		skip-push-permission-check image-fs-extract-retry verbosity log-format log-timestamp
		insecure insecure-pull skip-tls-verify skip-tls-verify-pull insecure-registry skip-tls-verify-registry registry-certificate
		registry-client-cert registry-mirror registry-map skip-default-registry-fallback push-retry image-download-retry
		push-ignore-immutable-tag-errors credential-helpers
		snapshotMode customPlatform tarPath force-build-metadata skip-unused-stages whitelist-var-run
		image username password password-stdin`)
	for _, name := range names {
		if !strings.Contains(string(page), "| `--"+name+"`") {
			t.Errorf("--%s is not on the page", name)
		}
	}
	for letter, name := range map[string]string{"f": "dockerfile", "c": "context", "b": "bucket", "d": "destination", "v": "verbosity", "i": "image", "u": "username", "p": "password"} {
		if !strings.Contains(string(page), "| `--"+name+"`, `-"+letter+"` |") {
			t.Errorf("-%s is not on the page", letter)
		}
	}
}

func TestEveryVariableIsDescribed(t *testing.T) {
	for _, s := range sections() {
		for _, v := range s.Variables {
			if v.Desc == "" || !strings.HasSuffix(v.Desc, ".") {
				t.Errorf("%s: the description %q is not a sentence", v.Name, v.Desc)
			}
		}
	}
}
