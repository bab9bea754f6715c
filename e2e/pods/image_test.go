// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// images are the roots of our own image that exist, by owner.
type images struct {
	mu   sync.Mutex
	made map[int]string
}

// root gives the unpacked image as files of owner, who is root of the pod on this machine. Pods see it through overlays.
func (i *images) root(t *testing.T, owner int) string {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.made == nil {
		i.made = map[int]string{}
	}
	if i.made[owner] == "" {
		i.made[owner] = image(t, filepath.Join(made.dir, fmt.Sprintf("image-%d", owner)), owner)
	}
	return i.made[owner]
}

// image makes the root of our own image: nothing but what the executor needs, and the list of it.
func image(t *testing.T, root string, owner int) string {
	t.Helper()
	binary, err := os.ReadFile(made.binary)
	if err != nil {
		t.Fatal(err)
	}
	authorities, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		authorities = nil // no registry of these tests has a public certificate
	}
	list := []string{
		"/etc/", "/etc/ssl/", "/etc/ssl/certs/", "/etc/ssl/certs/ca-certificates.crt", "/kaniko/", "/kaniko/.docker/", "/kaniko/executor", "/kaniko/files",
		"/tmp/", "/workspace/",
	}
	contents := map[string][]byte{"/kaniko/executor": binary, "/etc/ssl/certs/ca-certificates.crt": authorities, "/kaniko/files": []byte(strings.Join(list, "\n") + "\n")}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		full := filepath.Join(root, path)
		var err error
		if strings.HasSuffix(path, "/") {
			err = os.Mkdir(full, 0o755)
		} else {
			err = os.WriteFile(full, contents[path], 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, owner, owner)
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}
