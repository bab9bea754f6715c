// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestConformance lets the suite of the distribution specification try the registry without faults: what the client is tried with
// behaves as registries must. It knows no SHA-512, and no mount that does not say from where; both are optional.
func TestConformance(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	tool, err := exec.CommandContext(ctx, "../../.ci/tool", "conformance").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{true, false} {
		r := New(t, open)
		dir := t.TempDir()
		cmd := exec.CommandContext(ctx, strings.TrimSpace(string(tool)))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "OCI_REGISTRY="+r.Host, "OCI_TLS=disabled", "OCI_RESULTS_DIR="+dir, "OCI_VERSION=1.1", "OCI_DATA_SHA512=false", "OCI_API_BLOBS_MOUNT_ANONYMOUS=false")
		if !open {
			cmd.Env = append(cmd.Env, "OCI_USERNAME="+User, "OCI_PASSWORD="+Password)
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		report, readErr := os.ReadFile(filepath.Join(dir, "junit.xml"))
		if readErr != nil {
			t.Fatalf("%v %v\n%s", err, readErr, out.String())
		}
		counts := regexp.MustCompile(`<testsuites?[^>]*>`).FindString(string(report))
		t.Logf("open=%v: %s", open, counts)
		// What did not happen is not counted there.
		if err != nil || !regexp.MustCompile(` tests="\d{3,}"`).MatchString(counts) || regexp.MustCompile(` (failures|errors)="[1-9]`).MatchString(counts) {
			t.Errorf("open=%v: %v %s\n%s", open, err, counts, out.String())
		}
	}
}
