// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"encoding/base64"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/kaniko-go/kaniko-go/e2e/cloudtest"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// cloudJob is a job that people have, with the names of images, hosts and secrets in it; everything else is as they write it.
type cloudJob struct {
	name   string
	plain  bool     // in the plain image, not in the debug image
	lines  []string // of the job's script
	args   []string // of the plain image's entry point
	host   string   // of the registry by its own name, for which user and password are
	user   string
	pass   string
	image  string // what is built, as crane names it at the registry
	base   string // as the Dockerfile names it
	env    map[string]string
	home   map[string]string // what is mounted read-only below /root/.aws
	asked  string            // what the cloud was asked
	source string            // where the log says that the credentials are from
}

func cloudJobs(s *cloudtest.Server) []cloudJob {
	const password = "Passw0rd-of-the-hub"
	aws := s.AWSEndpoints()
	return []cloudJob{
		{
			name: "Docker Hub", host: "index.docker.io", user: "ci", pass: password, image: "group/app:1", base: "base/busybox:1", source: "/kaniko/.docker/config.json",
			lines: []string{
				`echo "{\"auths\":{\"https://index.docker.io/v2/\":{\"auth\":\"${DOCKERHUB_TOKEN}\"}}}" > /kaniko/.docker/config.json`,
				`/kaniko/executor --context $CI_PROJECT_DIR --dockerfile $CI_PROJECT_DIR/Dockerfile --destination group/app:1`,
			},
			env: map[string]string{"DOCKERHUB_TOKEN": base64.StdEncoding.EncodeToString([]byte("ci:" + password))},
		},
		{
			name: "ECR", host: ecrHost, user: "AWS", pass: s.AWSPassword, image: "app:1", base: ecrHost + "/base/busybox:1", source: "ecr (EnvConfigCredentials)", asked: "ecr ap-northeast-1 env",
			lines: []string{
				`echo "{\"credsStore\":\"ecr-login\"}" > /kaniko/.docker/config.json`,
				`/kaniko/executor --context $CI_PROJECT_DIR --dockerfile $CI_PROJECT_DIR/Dockerfile --destination ${ECR_URL}:1`,
			},
			env: cloudEnv(aws, s.AWSKeys(), map[string]string{"ECR_URL": ecrHost + "/app"}),
		},
		{
			name: "Google", host: gcrHost, user: "oauth2accesstoken", pass: s.GoogleToken, image: "project/image_name:1", base: gcrHost + "/base/busybox:1",
			source: "google (/tmp/gcloud-service-key.json)", asked: "google key",
			lines: []string{
				`mkdir /tmp && echo "${GCLOUD_TOKEN}" > /tmp/gcloud-service-key.json`,
				`/kaniko/executor --context $CI_PROJECT_DIR --dockerfile $CI_PROJECT_DIR/Dockerfile --destination "asia.gcr.io/${PROJECT_ID}/image_name:1"`,
			},
			env: map[string]string{"GCLOUD_TOKEN": s.GoogleKey(), "GOOGLE_APPLICATION_CREDENTIALS": "/tmp/gcloud-service-key.json", "PROJECT_ID": "project"},
		},
		{
			name: "ECR by arguments, keys mounted read-only", plain: true, host: ecrHost, user: "AWS", pass: s.AWSPassword, image: "kaniko:latest", base: ecrHost + "/base/busybox:1",
			source: "ecr (SharedConfigCredentials", asked: "ecr ap-northeast-1 profile",
			args: []string{"--dockerfile=./docker/Dockerfile", "--context=.", "--destination=" + ecrHost + "/kaniko"},
			env:  aws, home: map[string]string{"credentials": s.AWSProfile()},
		},
	}
}

// jobsInClouds is TestStepImages in a network of its own, where the registries have their real names: dist has the images.
func jobsInClouds(t *testing.T, dist string) {
	t.Helper()
	// A job makes /tmp itself, so the test's own directories are seen elsewhere.
	t.Setenv("TMPDIR", "/var/tmp")
	ca := ownNetwork(t)
	s := cloudtest.New(t, ca.start)
	front := &front{acr: s}
	front.listen(t, ca)
	for _, j := range cloudJobs(s) {
		t.Run(j.name, func(t *testing.T) {
			image := stepImage(t, dist, map[bool]string{false: "debug", true: "plain"}[j.plain])
			before := len(s.Asked())
			o := j.run(t, image, front, ca, s.Secrets())
			if asked := slices.Compact(s.Asked()[before:]); strings.Join(asked, ", ") != j.asked {
				t.Errorf("the cloud was asked %q, want %q\n%s", asked, j.asked, o.Log)
			}
		})
	}
}

func (j cloudJob) run(t *testing.T, image v1.Image, front *front, ca *authority, secrets []string) testenv.Outcome {
	t.Helper()
	r, auth := front.serve(t, j.host, j.user, j.pass), &authn.Basic{Username: j.user, Password: j.pass}
	busybox, err := testenv.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := crane.Push(busybox, r.Host+"/base/busybox:1", crane.WithAuth(auth), crane.Insecure); err != nil {
		t.Fatal(err)
	}
	c := testenv.NewImageContainer(t, image)
	env := imageEnv(t, image, map[string]string{"SSL_CERT_FILE": "/etc/ssl/authority/" + filepath.Base(ca.file)})
	maps.Copy(env, j.env)
	c.Mount(t, filepath.Dir(ca.file), "/etc/ssl/authority")
	c.Mount(t, "/etc/hosts", "/etc/hosts")
	project := map[string]string{"a.txt": "a\n"}
	recipe := "FROM " + j.base + "\nRUN cat /root/.aws/credentials /kaniko/.docker/config.json /tmp/gcloud-service-key.json 2>/dev/null; env >/environment\nCOPY a.txt /\n"
	build := testenv.Build{Container: c, Env: env}
	if j.plain {
		project["docker/Dockerfile"] = recipe
		c.Mount(t, files(project).write(t), "/workspace")
		c.WorkDir, build.Args = "/workspace", j.args
		c.Unconfined = true // what is mounted read-only cannot be put away where RUN is in place
		c.Mount(t, files(j.home).write(t), "/root/.aws")
		c.Mounts[len(c.Mounts)-1].ReadOnly = true
	} else {
		project["Dockerfile"] = recipe
		env["CI_PROJECT_DIR"] = "/builds/group/project"
		c.Mount(t, files(project).write(t), env["CI_PROJECT_DIR"])
		c.Program, build.Args = "/bin/sh", []string{"-c", "set -e\n" + strings.Join(j.lines, "\n")}
	}
	o := build.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	if _, err := crane.Digest(r.Host+"/"+j.image, crane.WithAuth(auth), crane.Insecure); err != nil {
		t.Error(err)
	}
	if line := "credentials for " + j.host + " from " + j.source; strings.Count(o.Log, line) != 1 {
		t.Errorf("the log does not say once %q:\n%s", line, o.Log)
	}
	layers, err := crane.Pull(r.Host+"/"+j.image, crane.WithAuth(auth), crane.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	told := o.Log + imageText(t, layers, "environment")
	for _, secret := range append(secrets, j.pass) {
		if strings.Contains(told, secret) {
			t.Errorf("log or RUN's environment tell %q", secret)
		}
	}
	return o
}

// imageText is what an image has in a file.
func imageText(t *testing.T, image v1.Image, name string) string {
	t.Helper()
	flat := mutate.Extract(image)
	defer func() { _ = flat.Close() }()
	for r := tar.NewReader(flat); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if strings.Trim(h.Name, "/") == name {
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
}
