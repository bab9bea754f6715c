// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kaniko-go/kaniko-go/e2e/cloudtest"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// planted is a set of secrets and where each was put.
type planted struct {
	secrets map[string]string // secret -> its place
	env     map[string]string
}

func (p *planted) secret(place string) string {
	b := make([]byte, 15)
	_, _ = rand.Read(b) // never fails
	s := "pl" + hex.EncodeToString(b)
	p.secrets[s] = place
	return s
}

// plant puts secrets into every place that the builder takes them from. The
// first of the docker configuration is the one that the registry asks for.
func plant(t *testing.T, s *cloudtest.Server, host, password string) *planted {
	t.Helper()
	home := testenv.Dir(t)
	p := &planted{secrets: map[string]string{password: "DOCKER_AUTH_CONFIG"}, env: map[string]string{"HOME": home, "DOCKER_CONFIG": home}}
	type entry map[string]string
	basic := func(password string) entry {
		return entry{"auth": base64.StdEncoding.EncodeToString([]byte("robot:" + password))}
	}
	content, file := map[string]entry{host: basic(password)}, map[string]entry{}
	for i := range 60 {
		p.env[fmt.Sprintf("KANIKO_HOST%d_EXAMPLE_COM_USER", i)] = "robot"
		p.env[fmt.Sprintf("KANIKO_HOST%d_EXAMPLE_COM_PASSWORD", i)] = p.secret("KANIKO_<HOST>_PASSWORD")
		file[fmt.Sprintf("file%d.example.com/team", i)] = basic(p.secret("config.json"))
	}
	for i := range 15 {
		content[fmt.Sprintf("content%d.example.com", i)] = entry{"identitytoken": p.secret("DOCKER_AUTH_CONFIG")}
		content[fmt.Sprintf("bearer%d.example.com", i)] = entry{"registrytoken": p.secret("DOCKER_AUTH_CONFIG")}
	}
	list := ""
	for i := range 20 {
		p.env[fmt.Sprintf("SECRET_%d", i)] = p.secret("KANIKO_SECRET, env")
		path := filepath.Join(home, fmt.Sprintf("secret-%d", i))
		mustWrite(t, path, p.secret("KANIKO_SECRET, src"))
		list += fmt.Sprintf("id=e%d,env=SECRET_%d\nid=f%d,src=%s\n", i, i, i, path)
	}
	p.env["KANIKO_SECRET"] = list
	for _, v := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "CI_REGISTRY_PASSWORD", "CI_DEPENDENCY_PROXY_PASSWORD", "CI_JOB_TOKEN",
		"IDENTITY_HEADER", "GIT_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
	} {
		p.env[v] = p.secret(v)
	}
	mustWrite(t, filepath.Join(home, "config.json"), asJSON(t, map[string]any{"auths": file}))
	p.env["DOCKER_AUTH_CONFIG"] = asJSON(t, map[string]any{"auths": content})
	p.env["GOOGLE_APPLICATION_CREDENTIALS"] = filepath.Join(home, "key.json")
	key := s.GoogleKey()
	mustWrite(t, p.env["GOOGLE_APPLICATION_CREDENTIALS"], key)
	p.secrets[key[strings.Index(key, "BEGIN PRIVATE KEY")+100:][:40]] = "key file"
	return p
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// find reports where in text there are secrets, as they are or as base64 of a
// user and the secret.
func (p *planted) find(t *testing.T, where string, text []byte) {
	t.Helper()
	for s, place := range p.secrets {
		for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s))[:20], base64.StdEncoding.EncodeToString([]byte("robot:" + s))[8:28]} {
			if bytes.Contains(text, []byte(form)) {
				t.Errorf("%s has a secret of %s", where, place)
			}
		}
	}
}

// TestPlantedSecrets builds with two hundred secrets within reach of the builder,
// uses some, and looks for all of them in everything that is left or was to be seen.
func TestPlantedSecrets(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.Need(t, "busybox", "docker-registry")
	const user, password = "robot", "pl0123456789-of-the-registry"
	r := testenv.NewRegistry(t, testenv.RegistryOptions{User: user, Password: password})
	image, err := testenv.Busybox(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(r.Host+"/base:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: user, Password: password})); err != nil {
		t.Fatal(err)
	}
	p := plant(t, cloudtest.New(t, newAuthority(t, []string{"localhost"}).start), r.Host, password)
	if len(p.secrets) < 200 {
		t.Fatalf("%d secrets are planted", len(p.secrets))
	}
	source := files{"Dockerfile": "FROM " + ref.Name() + "\n" +
		"RUN --mount=type=secret,id=e0 --mount=type=secret,id=f0 test -s /run/secrets/e0 && cat /run/secrets/f0 >/dev/null\n" +
		"RUN --mount=type=secret,id=e1 cat /run/secrets/e1; set -x; echo $(cat /run/secrets/e1)\n" +
		"RUN env >/env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline >/proc-seen 2>/dev/null; find / -xdev >/names; true\n" +
		"COPY a /\n", "a": "a"}.write(t)
	out := testenv.Dir(t)
	env := map[string]string{
		"KANIKO_CONTEXT": source, "KANIKO_DESTINATION": r.Host + "/app:1", "KANIKO_VERBOSITY": "trace", "KANIKO_CACHE": "true", "KANIKO_CACHE_DIR": filepath.Join(out, "cache"),
		"KANIKO_OCI_LAYOUT_PATH": filepath.Join(out, "layout"), "KANIKO_TAR_PATH": filepath.Join(out, "image.tar"),
	}
	for k, v := range p.env {
		env[k] = v
	}
	stop := p.watchArguments(t)
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
	stop()
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	if !strings.Contains(o.Log, "credentials for "+r.Host+" from DOCKER_AUTH_CONFIG") {
		t.Errorf("the log does not say whose credentials were used:\n%s", o.Log)
	}
	env["DOCKER_AUTH_CONFIG"] = fmt.Sprintf(`{"auths":{%q:{"username":"robot","password":%q}}}`, r.Host, p.secret("wrong password"))
	env["KANIKO_OCI_LAYOUT_PATH"], env["KANIKO_TAR_PATH"] = "", ""
	refused := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
	if refused.Code != 6 {
		t.Errorf("with a wrong password: exit code %d\n%s", refused.Code, refused.Log)
	}
	for _, o := range []testenv.Outcome{o, refused} {
		p.find(t, "the log", []byte(o.Log))
		p.find(t, "standard output", []byte(o.Stdout))
		p.findBelow(t, o.Dir) // store, temporary directory, results
	}
	if n := p.findBelow(t, out); n < 10 {
		t.Errorf("of layout, tarball and cache only %d files were looked at", n)
	}
	p.findBelow(t, filepath.Dir(filepath.Dir(filepath.Dir(mustGlob(t, r, "app/_manifests/tags/1/current/link")))))
}

func mustGlob(t *testing.T, r *testenv.Registry, pattern string) string {
	t.Helper()
	found, err := r.Files(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

// findBelow looks into every file of a directory, unpacked where it is compressed.
func (p *planted) findBelow(t *testing.T, dir string) (seen int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen++
		p.find(t, path, append([]byte(path+"\n"), data...))
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			if data, err = io.ReadAll(z); err != nil {
				return err
			}
			p.find(t, path, data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// watchArguments reads the arguments of every process again and again until it
// is stopped.
func (p *planted) watchArguments(t *testing.T) (stop func()) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan []byte)
	go func() {
		var all bytes.Buffer
		for {
			lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range lines {
				if line, err := os.ReadFile(file); err == nil {
					all.Write(line)
					all.WriteByte('\n')
				}
			}
			select {
			case <-quit:
				done <- all.Bytes()
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(quit)
		p.find(t, "the arguments of a process", <-done)
	}
}
