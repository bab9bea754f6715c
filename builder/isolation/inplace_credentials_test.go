// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPutAway(t *testing.T) {
	dir := t.TempDir()
	config, missing, link := filepath.Join(dir, "docker", "config.json"), filepath.Join(dir, "none"), filepath.Join(dir, "link")
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("secret"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(config, link); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()

	away, left := wipe([]string{link, config, missing})
	if len(away) != 1 || len(left) != 1 || !strings.Contains(left[0], link) {
		t.Fatalf("put away %v, left %q; want the file put away and the link left", away, left)
	}
	if _, err := os.Lstat(config); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	b := make([]byte, 16)
	n, _ := other.ReadAt(b, 0)
	if strings.Trim(string(b[:n]), "\x00") != "" {
		t.Errorf("who had the file open still reads %q", b[:n])
	}
	// What a RUN plants meanwhile does not survive, nor is it written through.
	if err := os.RemoveAll(filepath.Dir(config)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target")
	if err := os.Symlink(target, config); err != nil {
		t.Fatal(err)
	}
	if err := restoreAll(away); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(config)
	fi, statErr := os.Lstat(config)
	if err != nil || statErr != nil || string(got) != "secret" || fi.Mode() != 0o640 {
		t.Errorf("restored: %q, %v (%v, %v)", got, fi.Mode(), err, statErr)
	}
	if _, err := os.Lstat(target); !os.IsNotExist(err) {
		t.Errorf("the secret was written through a link: %v", err)
	}
}
