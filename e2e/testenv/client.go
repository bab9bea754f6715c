// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// clientLimit bounds each command of a foreign client.
const clientLimit = 2 * time.Minute

// Skopeo runs skopeo without signature policy and returns what it printed.
func Skopeo(t *testing.T, args ...string) string {
	t.Helper()
	Need(t, "skopeo")
	return command(t, "", "skopeo", append([]string{"--insecure-policy"}, args...)...)
}

// Bundle is an image that skopeo pulled and umoci unpacked.
type Bundle string

// UnpackImage pulls an image and unpacks it for runc, as the image's configuration says (user, environment, directory).
func UnpackImage(t *testing.T, reference string) Bundle {
	t.Helper()
	NeedRoot(t)
	Need(t, "skopeo", "umoci", "runc")
	dir := Dir(t)
	Skopeo(t, "copy", "--quiet", "--src-tls-verify=false", "docker://"+reference, "oci:"+filepath.Join(dir, "image")+":it")
	bundle := filepath.Join(dir, "bundle")
	command(t, "", "umoci", "unpack", "--image", filepath.Join(dir, "image")+":it", bundle)
	return Bundle(bundle)
}

// Run runs args in the bundle and returns the standard output and error. Without args the image's own entry point and command
// run; those must come first.
func (b Bundle) Run(t *testing.T, args ...string) string {
	t.Helper()
	editRuntimeConfig(t, filepath.Join(string(b), "config.json"), args)
	return command(t, string(b), "runc", "--root", filepath.Join(filepath.Dir(string(b)), "runc"), "run", filepath.Base(filepath.Dir(string(b))))
}

// editRuntimeConfig takes away the terminal that umoci asks for, and sets the arguments.
func editRuntimeConfig(t *testing.T, name string, args []string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(b, &config); err != nil {
		t.Fatal(err)
	}
	process, ok := config["process"].(map[string]any)
	if !ok {
		t.Fatalf("%s: no process", name)
	}
	process["terminal"] = false
	if len(args) > 0 {
		process["args"] = args
	}
	if b, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// Debs returns the .deb files that Debian's image needs for some packages and does not have. They are downloaded once and
// kept under CacheDir.
func Debs(t *testing.T, packages ...string) []string {
	t.Helper()
	NeedRoot(t)
	Need(t, "apt-get", "mmdebstrap", "tar")
	tree, err := DebianTree(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := CacheDir("debs")
	if err != nil {
		t.Fatal(err)
	}
	set := filepath.Join(dir, Suite+"-"+packages[0])
	if debs := debsIn(set); debs != nil {
		return debs
	}
	work := Dir(t)
	command(t, work, "tar", "-xzf", tree, "./var/lib/dpkg/status")
	for _, sub := range []string{"archives/partial", "lists"} {
		if err := os.MkdirAll(filepath.Join(work, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{
		"-q", "-y", "--no-install-recommends", "--download-only", "-o", "Dir::State::status=" + filepath.Join(work, "var/lib/dpkg/status"),
		"-o", "Dir::Cache::archives=" + filepath.Join(work, "archives"), "-o", "APT::Sandbox::User=root", "install",
	}
	command(t, work, "apt-get", append(args, packages...)...)
	if err := os.RemoveAll(set); err != nil {
		t.Fatal(err)
	}
	command(t, work, "cp", "-r", filepath.Join(work, "archives"), set+".new")
	if err := os.Rename(set+".new", set); err != nil {
		t.Fatal(err)
	}
	debs := debsIn(set)
	if debs == nil {
		t.Fatal(fmt.Errorf("apt-get downloaded nothing for %v", packages))
	}
	return debs
}

func debsIn(dir string) []string {
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	return debs
}
