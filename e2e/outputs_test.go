// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// simple is a build that has a COPY and a RUN.
func simple() files {
	return files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nCOPY a /a\nRUN echo made > /made\nCMD [\"cat\", \"/made\"]\n", "a": "a\n", ".dockerignore": "Dockerfile\n"}
}

// TestSeveralDestinations pushes once to two repositories and two tags, and writes every kind of digest file.
func TestSeveralDestinations(t *testing.T) {
	w := newWorld(t)
	directory, out := simple().write(t), testenv.Dir(t)
	first, second, third := w.Host+"/one/app:1", w.Host+"/one/app:latest", w.Host+"/two:x"
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(directory, first+"\n"+second+"\n"+third, map[string]string{
		"KANIKO_DIGEST_FILE": filepath.Join(out, "digest"), "KANIKO_IMAGE_NAME_WITH_DIGEST_FILE": filepath.Join(out, "name"),
		"KANIKO_IMAGE_NAME_TAG_WITH_DIGEST_FILE": filepath.Join(out, "tag"),
	})}.Run(t)
	mustSucceed(t, o, first)
	digest := o.Results["IMAGE_DIGEST"]
	for _, destination := range []string{second, third} {
		if got, err := crane.Digest(destination, crane.Insecure); err != nil || got != digest {
			t.Errorf("%s is %s (%v), want %s", destination, got, err, digest)
		}
	}
	name := strings.TrimSuffix
	for file, want := range map[string]string{
		"digest": digest,
		"name":   fmt.Sprintf("%s@%s\n%s@%s\n%s@%s", name(first, ":1"), digest, name(second, ":latest"), digest, name(third, ":x"), digest),
		"tag":    fmt.Sprintf("%s@%s\n%s@%s\n%s@%s", first, digest, second, digest, third, digest),
	} {
		b, err := os.ReadFile(filepath.Join(out, file))
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s holds %q (%v), want %q", file, b, err, want)
		}
	}
}

// TestFilesInsteadOfPush writes an OCI layout and a tarball, and foreign clients read them.
func TestFilesInsteadOfPush(t *testing.T) {
	w := newWorld(t)
	testenv.Need(t, "skopeo")
	directory, out := simple().write(t), testenv.Dir(t)
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(directory, w.Host+"/unpushed:1", map[string]string{
		"KANIKO_NO_PUSH": "true", "KANIKO_OCI_LAYOUT_PATH": filepath.Join(out, "layout"), "KANIKO_TAR_PATH": filepath.Join(out, "image.tar"),
	})}.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	mustBeClean(t, o)
	if _, err := crane.Digest(w.Host+"/unpushed:1", crane.Insecure); err == nil {
		t.Error("it was pushed")
	}
	if o.Results["IMAGE_DIGEST"] == "" || o.Results["IMAGE_URL"] != "" {
		t.Errorf("results %q, want the digest and an empty URL", o.Results)
	}
	index, err := layout.ImageIndexFromPath(filepath.Join(out, "layout"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("the layout is not valid: %v", err)
	}
	if got := testenv.Skopeo(t, "inspect", "--format", "{{.Digest}}", "oci:"+filepath.Join(out, "layout")); strings.TrimSpace(got) != o.Results["IMAGE_DIGEST"] {
		t.Errorf("skopeo sees %s in the layout, the result is %s", got, o.Results["IMAGE_DIGEST"])
	}
	testenv.Skopeo(t, "copy", "--quiet", "--dest-tls-verify=false", "docker-archive:"+filepath.Join(out, "image.tar"), "docker://"+w.Host+"/from-tar:1")
	image, err := testenv.Pull(context.Background(), w.Host+"/from-tar:1")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := testenv.Describe(image, w.baseImage)
	if err != nil || !strings.Contains(tree, "/made \"made\\n\"") {
		t.Errorf("the tarball's image adds (%v):\n%s", err, tree)
	}
}

// TestLayoutShared lets several builds write to one OCI layout at the same time, and then the disk get full: what was there stays.
func TestLayoutShared(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(smallDisk(t, 64), "layout")
	build := func(tag, size string) testenv.Outcome {
		directory := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN head -c " + size + " /dev/urandom > /big\n"}.write(t)
		return testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(directory, w.Host+"/shared:"+tag, map[string]string{
			"KANIKO_NO_PUSH": "true", "KANIKO_OCI_LAYOUT_PATH": dir,
		})}.Run(t)
	}
	tags := func() []string {
		index, err := layout.ImageIndexFromPath(dir)
		if err == nil {
			err = validate.Index(index)
		}
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		var tags []string
		for _, d := range manifest.Manifests {
			_, tag, _ := strings.Cut(d.Annotations["org.opencontainers.image.ref.name"], "/shared:")
			tags = append(tags, tag)
		}
		slices.Sort(tags)
		return tags
	}
	var all sync.WaitGroup
	for _, tag := range []string{"1", "2", "3"} {
		all.Go(func() {
			if o := build(tag, "10000"); o.Code != 0 {
				t.Errorf("exit code %d\n%s", o.Code, o.Log)
			}
		})
	}
	all.Wait()
	before := []string{"1", "2", "3"}
	if got := tags(); !slices.Equal(got, before) {
		t.Fatalf("the layout has %q, want %q", got, before)
	}
	mustFail(t, build("2", "70000000"), 7, "KANIKO_OCI_LAYOUT_PATH", "no space left")
	if got := tags(); !slices.Equal(got, before) {
		t.Errorf("the layout has %q after a failure, want %q", got, before)
	}
	if o := build("2", "20000"); o.Code != 0 {
		t.Errorf("exit code %d after a failure\n%s", o.Code, o.Log)
	}
	if got := tags(); !slices.Equal(got, before) {
		t.Errorf("the layout has %q in the end, want %q", got, before)
	}
}

// TestPrivateRegistry pulls from and pushes to a registry with a private authority and a password.
func TestPrivateRegistry(t *testing.T) {
	w := newWorld(t)
	private := testenv.NewRegistry(t, testenv.RegistryOptions{TLS: true, User: "user", Password: "secret"})
	directory, config := simple().write(t), testenv.Dir(t)
	destination := private.Host + "/app:1"
	auth := fmt.Sprintf(`{"auths":{%q:{"username":"user","password":"secret"}}}`, private.Host)
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(auth), 0o644); err != nil {
		t.Fatal(err)
	}
	env := w.env(directory, destination, map[string]string{"DOCKER_CONFIG": config})
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
	if o.Code == 0 {
		t.Fatalf("an unknown authority was believed:\n%s", o.Log)
	}
	env["KANIKO_REGISTRY_CERTIFICATE"] = private.Host + "=" + private.CA
	o = testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	mustBeClean(t, o)
	testenv.Need(t, "skopeo")
	if got := testenv.Skopeo(t, "inspect", "--tls-verify=false", "--creds=user:secret", "--format", "{{.Digest}}", "docker://"+destination); strings.TrimSpace(got) != o.Results["IMAGE_DIGEST"] {
		t.Errorf("skopeo sees %s, the result is %s", got, o.Results["IMAGE_DIGEST"])
	}
	// the second build's base is the first one's image
	second := files{"Dockerfile": "FROM " + destination + "\nRUN test -e /made && echo second > /second\n"}.write(t)
	env["KANIKO_CONTEXT"], env["KANIKO_DESTINATION"] = second, private.Host+"/second:1"
	if o = (testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}).Run(t); o.Code != 0 {
		t.Errorf("exit code %d\n%s", o.Code, o.Log)
	}
	if strings.Contains(o.Log, "secret") {
		t.Errorf("the log holds the password:\n%s", o.Log)
	}
}

// TestFormats makes both kinds of media types with both compressions; each must be readable by ggcr and skopeo.
func TestFormats(t *testing.T) {
	w := newWorld(t)
	testenv.Need(t, "skopeo")
	directory := simple().write(t)
	for _, tc := range []struct{ format, compression, level, manifest, layer string }{
		{"oci", "gzip", "1", "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"},
		{"oci", "gzip", "9", "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"},
		{"oci", "zstd", "3", "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.layer.v1.tar+zstd"},
		{"docker", "gzip", "-1", "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"},
	} {
		t.Run(tc.format+" "+tc.compression+" "+tc.level, func(t *testing.T) {
			destination := fmt.Sprintf("%s/formats:%s-%s%s", w.Host, tc.format, tc.compression, tc.level)
			o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(directory, destination, map[string]string{
				"KANIKO_IMAGE_FORMAT": tc.format, "KANIKO_COMPRESSION": tc.compression, "KANIKO_COMPRESSION_LEVEL": tc.level,
			})}.Run(t)
			manifest, err := mustSucceed(t, o, destination).Manifest()
			if err != nil {
				t.Fatal(err)
			}
			if last := manifest.Layers[len(manifest.Layers)-1]; string(manifest.MediaType) != tc.manifest || string(last.MediaType) != tc.layer {
				t.Errorf("manifest %s, layer %s", manifest.MediaType, last.MediaType)
			}
			testenv.Skopeo(t, "copy", "--quiet", "--src-tls-verify=false", "docker://"+destination, "oci:"+filepath.Join(testenv.Dir(t), "copy")+":it")
		})
	}
}

// TestReproducible builds the same thing twice, as different users and with file times of another day.
func TestReproducible(t *testing.T) {
	w := newWorld(t)
	for _, epoch := range []map[string]string{{"KANIKO_REPRODUCIBLE": "true"}, {"SOURCE_DATE_EPOCH": "1700000000"}} {
		digests := map[string]bool{}
		for i, s := range []testenv.Situation{testenv.DefaultRoot(), testenv.WithSubordinateIDs(), testenv.DefaultRoot()} {
			directory := simple().write(t)
			day := time.Date(2024, 3, 1+i, 12, i, i, 0, time.UTC)
			if err := os.Chtimes(filepath.Join(directory, "a"), day, day); err != nil {
				t.Fatal(err)
			}
			destination := fmt.Sprintf("%s/reproducible:%d", w.Host, i)
			o := testenv.Build{Binary: binary, Situation: s, Env: w.env(directory, destination, epoch)}.Run(t)
			mustSucceed(t, o, destination)
			digests[o.Results["IMAGE_DIGEST"]] = true
		}
		if len(digests) != 1 {
			t.Errorf("with %v there are %d digests", epoch, len(digests))
		}
	}
}

// TestOnbuild runs the triggers of a base that this same binary built.
func TestOnbuild(t *testing.T) {
	w := newWorld(t)
	parent := w.Host + "/parent:1"
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nONBUILD COPY . /app/\nONBUILD RUN cat /app/a > /triggered\n"}.write(t), parent, nil)}.Run(t)
	mustSucceed(t, o, parent)
	child := w.Host + "/child:1"
	o = testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(files{"Dockerfile": "FROM " + parent + "\nRUN echo own > /own\n", "a": "content\n"}.write(t), child, nil)}.Run(t)
	tree, err := testenv.Describe(mustSucceed(t, o, child), w.baseImage)
	if err != nil || !strings.Contains(tree, `/triggered "content\n"`) || !strings.Contains(tree, `/own "own\n"`) {
		t.Errorf("the child adds (%v):\n%s", err, tree)
	}
}
