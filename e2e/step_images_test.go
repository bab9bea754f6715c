// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

const imagesLimit = 10 * time.Minute

// buildStepImages makes the published images for this machine's architecture, around the binary under test.
func buildStepImages(t *testing.T, dist string) (digests string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), imagesLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "./release", "images", "-dist", dist, "-builder", binary, "-arch", runtime.GOARCH, "-version", "v0.0.1", "-revision", "abc", "-epoch", "1700000000")
	cmd.Dir = ".."
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, log.String())
	}
	return string(out)
}

// newDist is a directory with the binary under test where the images are made. Packages of Debian are downloaded once.
func newDist(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "apt-get", "dpkg-deb", "go")
	dist := testenv.Dir(t)
	target := filepath.Join(dist, "linux-"+runtime.GOARCH, "kaniko-go")
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, program, 0o755); err != nil {
		t.Fatal(err)
	}
	kept, err := testenv.CacheDir("step-images")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kept, filepath.Join(dist, "debian")); err != nil {
		t.Fatal(err)
	}
	return dist
}

func stepImage(t *testing.T, dist, name string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(dist, name+".oci"))
	if err != nil {
		t.Fatal(err)
	}
	for {
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		first := manifest.Manifests[0]
		if !first.MediaType.IsIndex() {
			image, err := index.Image(first.Digest)
			if err != nil {
				t.Fatal(err)
			}
			return image
		}
		if index, err = index.ImageIndex(first.Digest); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStepImages makes them twice and looks at what is in them; then builds in containers of them, as jobs and pods do.
func TestStepImages(t *testing.T) {
	testenv.NeedRoot(t)
	if dist := os.Getenv("KANIKO_GO_DIST"); dist != "" {
		jobsInClouds(t, dist)
		return
	}
	dist := newDist(t)
	first := buildStepImages(t, dist)
	if diff := cmp.Diff(first, buildStepImages(t, dist)); diff != "" {
		t.Errorf("made again the images are others:\n%s", diff)
	}
	plain, debug := stepImage(t, dist, "plain"), stepImage(t, dist, "debug")
	t.Run("plain holds nothing else", func(t *testing.T) { plainHolds(t, plain) })
	t.Run("debug has a shell", func(t *testing.T) { debugHolds(t, debug) })
	t.Run("published", func(t *testing.T) { published(t, dist, first) })
	t.Run("lists of modules", func(t *testing.T) { listsModules(t, dist) })
	t.Run("a job in debug", func(t *testing.T) { jobInDebug(t, debug) })
	t.Run("jobs with real names", func(t *testing.T) { again(t, "KANIKO_GO_DIST="+dist) })
	t.Run("args in plain", func(t *testing.T) { argsInPlain(t, plain) })
	t.Run("without any privilege", func(t *testing.T) { unprivileged(t, plain) })
}

// imagePaths lists an image: path -> type and mode.
func imagePaths(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	flat := mutate.Extract(image)
	defer flat.Close()
	found := map[string]string{}
	for r := tar.NewReader(flat); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.After(time.Unix(1700000000, 0)) {
			t.Errorf("%s belongs to %d:%d and is of %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		name := "/" + strings.Trim(h.Name, "/")
		found[name] = fmt.Sprintf("%c %o %s", h.Typeflag, h.Mode, h.Linkname)
	}
}

func plainHolds(t *testing.T, image v1.Image) {
	t.Helper()
	want := map[string]string{
		"/etc": "5 755 ", "/etc/ssl": "5 755 ", "/etc/ssl/certs": "5 755 ", "/etc/ssl/certs/ca-certificates.crt": "0 644 ",
		"/kaniko": "5 1777 ", "/kaniko/.docker": "5 1777 ", "/kaniko/executor": "0 755 ", "/kaniko/files": "0 644 ", "/kaniko/ssl": "5 755 ", "/kaniko/ssl/certs": "5 1777 ",
		"/kaniko/warmer": "2 777 executor", "/workspace": "5 1777 ",
	}
	if diff := cmp.Diff(want, imagePaths(t, image)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	type config struct {
		Env, Entrypoint, Cmd []string
		User, WorkingDir     string
	}
	wantConfig := config{
		Env:        []string{"PATH=/usr/local/bin:/kaniko", "HOME=/root", "USER=root", "SSL_CERT_DIR=/kaniko/ssl/certs", "DOCKER_CONFIG=/kaniko/.docker"},
		Entrypoint: []string{"/kaniko/executor"}, WorkingDir: "/workspace",
	}
	c := file.Config
	if diff := cmp.Diff(wantConfig, config{c.Env, c.Entrypoint, c.Cmd, c.User, c.WorkingDir}); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	for key, value := range map[string]string{"version": "v0.0.1", "revision": "abc", "created": "2023-11-14T22:13:20Z", "licenses": "Apache-2.0"} {
		if got := c.Labels["org.opencontainers.image."+key]; got != value {
			t.Errorf("label %s is %q, want %q", key, got, value)
		}
	}
}

func debugHolds(t *testing.T, image v1.Image) {
	t.Helper()
	found := imagePaths(t, image)
	for name, want := range map[string]string{"/bin/sh": "2 777 /busybox/sh", "/busybox/sh": "2 777 busybox", "/busybox/busybox": "0 755 ", "/kaniko": "5 1777 ", "/busybox/cat": "2 777 busybox"} {
		if found[name] != want {
			t.Errorf("%s is %q, want %q", name, found[name], want)
		}
	}
	if _, tmp := found["/tmp"]; tmp {
		t.Error("there is a /tmp, which jobs make with mkdir")
	}
	// The list of files is what an in-place build believes.
	c := testenv.NewImageContainer(t, image)
	text, err := os.ReadFile(filepath.Join(c.Dir, "kaniko/files"))
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(string(text))
	for name, kind := range found {
		if kind[0] == '5' {
			name += "/"
		}
		if !slices.Contains(listed, name) {
			t.Errorf("%s is not in /kaniko/files", name)
		}
	}
}

// published pushes a layout as a maintainer does: what the registry has is what was printed.
func published(t *testing.T, dist, printed string) {
	t.Helper()
	testenv.Need(t, "docker-registry")
	r := testenv.NewRegistry(t, testenv.RegistryOptions{})
	for _, name := range []string{"plain", "debug"} {
		o := testenv.Build{Binary: binary, Args: []string{"push", filepath.Join(dist, name+".oci"), "-d", r.Host + "/kaniko-go:" + name}}.Run(t)
		if o.Code != 0 {
			t.Fatalf("exit code %d\n%s", o.Code, o.Log)
		}
		if line := name + ".oci " + o.Results["IMAGE_DIGEST"] + "\n"; !strings.Contains(printed, line) {
			t.Errorf("pushed %q, but printed was %q", line, printed)
		}
	}
}

func listsModules(t *testing.T, dist string) {
	t.Helper()
	for _, name := range []string{"plain", "debug"} {
		text, err := os.ReadFile(filepath.Join(dist, name+"-"+runtime.GOARCH+".spdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			SPDXVersion string
			Packages    []struct{ Name string }
		}
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range doc.Packages {
			names = append(names, p.Name)
		}
		for _, want := range []string{"github.com/google/go-containerregistry", "github.com/moby/buildkit", "stdlib", "ca-certificates"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s: %s is not listed", name, want)
			}
		}
		if slices.Contains(names, "busybox-static") != (name == "debug") {
			t.Errorf("%s: busybox is listed where it is not, or not where it is", name)
		}
	}
}

// imageEnv is the environment of a container of an image.
func imageEnv(t *testing.T, image v1.Image, more map[string]string) map[string]string {
	t.Helper()
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"TMPDIR": "", "KANIKO_DIR": "", "KANIKO_RESULTS_DIR": ""}
	for _, entry := range file.Config.Env {
		key, value, _ := strings.Cut(entry, "=")
		env[key] = value
	}
	for k, v := range more {
		env[k] = v
	}
	return env
}

// privateBase is a registry that asks for a password, with a base in it.
func privateBase(t *testing.T) (r *testenv.Registry, base string, auth authn.Authenticator) {
	t.Helper()
	testenv.Need(t, "busybox", "docker-registry")
	r = testenv.NewRegistry(t, testenv.RegistryOptions{User: "ci", Password: "pass"})
	image, err := testenv.Busybox(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	base, auth = r.Host+"/base/busybox:1", &authn.Basic{Username: "ci", Password: "pass"}
	if err := crane.Push(image, base, crane.WithAuth(auth), crane.Insecure); err != nil {
		t.Fatal(err)
	}
	return r, base, auth
}

// jobInDebug runs the lines of a GitLab job in the debug image, entry point empty: what they write is no obstacle, and is there afterwards.
func jobInDebug(t *testing.T, debug v1.Image) {
	t.Helper()
	r, base, auth := privateBase(t)
	c := testenv.NewImageContainer(t, debug)
	c.Program = "/bin/sh"
	project := files{"Dockerfile": "FROM " + base + "\nRUN test ! -e /busybox && test ! -e /kaniko/.docker/config.json && test ! -e /gcloud/key.json && echo made >/made\nCOPY a.txt /\n", "a.txt": "a\n"}.write(t)
	c.Mount(t, project, "/builds/group/project")
	script := `set -e
echo "{\"auths\":{\"${HOST}\":{\"auth\":\"${TOKEN}\"}}}" > /kaniko/.docker/config.json
mkdir /gcloud && echo "${GCLOUD_TOKEN}" > /gcloud/key.json
echo "${CERTIFICATE}" >> /kaniko/ssl/certs/additional-ca-cert-bundle.crt
/kaniko/executor --context $CI_PROJECT_DIR --dockerfile $CI_PROJECT_DIR/Dockerfile --destination ${HOST}/group/project:1 --digest-file=$CI_PROJECT_DIR/digest
ls /kaniko/.docker/config.json /kaniko/ssl/certs /busybox/sh && test "$(cat /gcloud/key.json)" = "${GCLOUD_TOKEN}" && executor version`
	o := testenv.Build{Container: c, Args: []string{"-c", script}, Env: imageEnv(t, debug, map[string]string{
		"HOST": r.Host, "TOKEN": base64.StdEncoding.EncodeToString([]byte("ci:pass")), "CERTIFICATE": "-", "GCLOUD_TOKEN": "{}", "GOOGLE_APPLICATION_CREDENTIALS": "/gcloud/key.json", "CI_PROJECT_DIR": "/builds/group/project", "KANIKO_JOB": "unknown to us",
	})}.Run(t)
	if o.Code != 0 || !strings.Contains(o.Stdout, "kaniko-go ") {
		t.Fatalf("exit code %d\n%s\n%s", o.Code, o.Log, o.Stdout)
	}
	if !strings.Contains(o.Log, "isolation: in place") {
		t.Errorf("not in place:\n%s", o.Log)
	}
	digest, err := crane.Digest(r.Host+"/group/project:1", crane.WithAuth(auth), crane.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(project, "digest"))
	if err != nil || string(written) != digest {
		t.Errorf("the digest file has %q (%v), the registry %s", written, err, digest)
	}
	if len(o.Left) > 0 {
		t.Errorf("left behind: %q", o.Left)
	}
}

// argsInPlain is a pod of the plain image with arguments, relative ones too, and credentials mounted read-only.
func argsInPlain(t *testing.T, plain v1.Image) {
	t.Helper()
	r, base, auth := privateBase(t)
	c := testenv.NewImageContainer(t, plain)
	c.Mount(t, files{"docker/Dockerfile": "FROM " + base + "\nRUN echo made >/made\nCOPY a.txt /\n", "a.txt": "a\n"}.write(t), "/workspace")
	secret := files{"config.json": fmt.Sprintf(`{"auths":{%q:{"username":"ci","password":"pass"}}}`, r.Host)}.write(t)
	c.Mount(t, secret, "/kaniko/.docker")
	c.Mounts[len(c.Mounts)-1].ReadOnly = true
	c.WorkDir = "/workspace"
	o := testenv.Build{
		Container: c, Args: []string{"--dockerfile=./docker/Dockerfile", "--context=.", "--destination=" + r.Host + "/app:1"}, Env: imageEnv(t, plain, nil),
	}.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	if _, err := crane.Digest(r.Host+"/app:1", crane.WithAuth(auth), crane.Insecure); err != nil {
		t.Error(err)
	}
}

// unprivileged: a user of any number can build an image without RUN with nothing but the image.
func unprivileged(t *testing.T, plain v1.Image) {
	t.Helper()
	w := newWorld(t)
	c := testenv.NewImageContainer(t, plain)
	c.UID, c.NoNewPrivileges = 12345, true
	c.Mount(t, files{"Dockerfile": "FROM " + w.base + "\nCOPY --chown=1:2 a.txt /\n", "a.txt": "a\n"}.write(t), "/workspace")
	o := testenv.Build{Container: c, Args: []string{"--context=/workspace", "--destination=" + w.Host + "/any:1"}, Env: imageEnv(t, plain, nil)}.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	if _, err := testenv.Pull(context.Background(), w.Host+"/any:1"); err != nil {
		t.Error(err)
	}
}
