// SPDX-License-Identifier: Apache-2.0

package results

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPlacesThatAreNone gives a file as the directory and a directory as a file: each is said once.
func TestPlacesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (Outputs{Dir: plain}).RemoveStale(); err != nil {
		t.Errorf("below a file there are no results to be removed: %v", err)
	}
	err := Outputs{DigestFile: dir}.RemoveStale()
	if err == nil || !strings.Contains(err.Error(), dir+" is a directory with files in it; give the name of a file") {
		t.Errorf("a directory as digest file: %v", err)
	}
	if _, err := os.Stat(plain); err != nil {
		t.Error(err)
	}
}
