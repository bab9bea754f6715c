// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kaniko-go/kaniko-go/step/config"
)

const (
	indexFile      = "../../tasks/kaniko-go-index/kaniko-go-index.yaml"
	splitFile      = "../../tasks/kaniko-go-split/kaniko-go-split.yaml"
	stepActionFile = "../../stepactions/kaniko-go/kaniko-go.yaml"
)

// serve starts a registry whose requests pass allow, and gives its host.
func serve(t *testing.T, allow func(r *http.Request) bool) string {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if allow != nil && !allow(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// succeed runs a pod and gives its results.
func succeed(t *testing.T, p *Pod, step string) map[string]string {
	t.Helper()
	code, _, stderr := run(t, p, step)
	if code != 0 {
		t.Fatalf("%s: exit code %d\n%s", p.Name, code, stderr)
	}
	got, err := p.Results()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// platformsOf gives the platforms of an index, all of which is checked.
func platformsOf(t *testing.T, ref string) []string {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("%s: %v", ref, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range manifest.Manifests {
		list = append(list, m.Platform.String())
	}
	return list
}

// TestExtraArgs holds that kaniko's flags, as a TaskRun of the catalogue's Task kaniko has them, work: those that add to a parameter and those that
// win over one.
func TestExtraArgs(t *testing.T) {
	source := directory(t, map[string]string{"Dockerfile": "FROM scratch"})
	cache := t.TempDir()
	p, err := Tekton(taskFile, TaskRun{
		Params:     map[string]string{"IMAGE": "r.example/a:1", "DOCKERFILE": "./Dockerfile", "CONTEXT": "./", "LABELS": "one=1", "TARGET": "param", "BUILDER_IMAGE": "gcr.io/kaniko-project/executor:v1.5.1"},
		Arrays:     map[string][]string{"EXTRA_ARGS": {"", "--build-arg=A=x,y", "--build-arg", "B=2 3", "--label=two=2", "--destination=r.example/a:latest", "--target=flag", "--snapshot-mode=redo", "--skip-tls-verify"}},
		Workspaces: map[string]string{"source": source, "cache": cache, "sslcertdir": directory(t, map[string]string{"ca.crt": "none"})},
	}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run(t, p, launcher(t))
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, stderr)
	}
	var got config.Config
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"A": "x,y", "B": "2 3"}, got.BuildArg.Map()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"one": "1", "two": "2"}, got.Label.Map()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(config.List{"r.example/a:1", "r.example/a:latest"}, got.Destination); diff != "" {
		t.Error(diff)
	}
	if got.CacheDir != cache || !got.SkipTLSVerify || got.Context != "./" || got.Target != "flag" {
		t.Errorf("%+v", got)
	}
	if i := slices.IndexFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "SSL_CERT_DIR=") }); i < 0 || !strings.HasSuffix(p.Env[i], ":/kaniko/ssl/certs") {
		t.Errorf("SSL_CERT_DIR: %v", p.Env)
	}
}

// TestStepAction builds with the StepAction: its results are those of the step.
func TestStepAction(t *testing.T) {
	step, host := binary(t), serve(t, nil)
	source := directory(t, map[string]string{"app/Dockerfile": "FROM scratch\nARG FILE\nCOPY ${FILE} /\nLABEL made=here\n", "app/hello": "hello\n"})
	p, err := StepAction(stepActionFile, TaskRun{
		Params:     map[string]string{"IMAGE": host + "/a:1", "SOURCE_PATH": "/workspace/source/app", "LABELS": "asked=for"},
		Arrays:     map[string][]string{"EXTRA_ARGS": {"--build-arg=FILE=hello"}},
		Workspaces: map[string]string{"source": source},
	}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got := succeed(t, p, step)
	digest := pushed(t, host+"/a:1").String()
	want := map[string]string{"IMAGE_DIGEST": digest, "IMAGE_URL": host + "/a:1", "IMAGE_REF": host + "/a@" + digest, "IMAGES": host + "/a@" + digest}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

// TestIndex builds for two platforms, as the matrix of the Pipeline does, and puts both under one digest; two of one platform are refused.
func TestIndex(t *testing.T) {
	step, host := binary(t), serve(t, nil)
	source := directory(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	var images []string
	for _, arch := range []string{"amd64", "arm64"} {
		p, err := Tekton(taskFile, TaskRun{
			Params:     map[string]string{"IMAGE": host + "/app:1-" + arch, "PLATFORM": "linux/" + arch, "ARCH": arch},
			Workspaces: map[string]string{"source": source},
		}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, succeed(t, p, step)["IMAGE_REF"])
	}
	index := func(images []string) *Pod {
		t.Helper()
		p, err := Tekton(indexFile, TaskRun{
			Params: map[string]string{"IMAGE": host + "/app:1", "ANNOTATIONS": "one=1"},
			Arrays: map[string][]string{"IMAGES": images},
		}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	got := succeed(t, index(images), step)
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platformsOf(t, got["IMAGE_REF"])); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
	if got["IMAGE_URL"] != host+"/app:1" || got["IMAGE_REF"] != host+"/app@"+got["IMAGE_DIGEST"] {
		t.Errorf("results: %v", got)
	}
	p := index([]string{images[0], images[0]})
	if code, _, stderr := run(t, p, step); code != 2 || !strings.Contains(stderr, "linux/amd64") {
		t.Errorf("the same image twice: exit code %d\n%s", code, stderr)
	}
	if got, err := p.Results(); err != nil || len(got) != 0 {
		t.Errorf("results after a failure: %v, %v", got, err)
	}
}

// TestMultiArch carries out the template multi-arch: its loop, and the index of what the loop gives.
func TestMultiArch(t *testing.T) {
	step, host := binary(t), serve(t, nil)
	call := Call{
		Parameters: map[string]string{"image": host + "/app:1", "labels": "asked=for", "annotations": "one=1"},
		Artifacts:  map[string]string{"context": directory(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})},
	}
	pods := 0
	got, err := ArgoSteps(workflowFile, "multi-arch", call, t.TempDir(), func(p *Pod) (map[string]string, error) {
		pods++
		return succeed(t, p, step), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pods != 3 {
		t.Errorf("%d pods, want two builds and the index", pods)
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platformsOf(t, host+"/app:1")); diff != "" {
		t.Errorf("platforms (-want +got):\n%s", diff)
	}
	if got["image-url"] != host+"/app:1" || got["image-ref"] != host+"/app@"+got["image-digest"] || got["images"] != got["image-ref"] {
		t.Errorf("outputs: %v", got)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := remote.Head(tag(t, host+"/app:1-"+arch)); err != nil {
			t.Errorf("the image for %s: %v", arch, err)
		}
	}
}

func tag(t *testing.T, ref string) name.Reference {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestBuildVolume builds what is on a volume of the workflow, in a directory of it.
func TestBuildVolume(t *testing.T) {
	step, host := binary(t), serve(t, nil)
	volume := directory(t, map[string]string{"code/app/Dockerfile": "FROM scratch\nCOPY hello /\nLABEL made=here asked=for\n", "code/app/hello": "hello\n"})
	p, err := Argo(workflowFile, "build-volume", Call{
		Parameters: map[string]string{"image": host + "/a:1", "volume": "code", "directory": "code", "context": "app", "cache-dir": "/workspace/cache"},
		Volumes:    map[string]string{"code": volume},
	}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got := succeed(t, p, step)
	if want := pushed(t, host+"/a:1").String(); got["image-digest"] != want {
		t.Errorf("outputs: %v, want the digest %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(volume, "cache")); err != nil {
		t.Errorf("the cache on the volume: %v", err)
	}
}

// split is the split build of Tekton or of Argo.
type split struct {
	name string
	pods func(t *testing.T, image, source string, secrets map[string]string) []*Pod
	ref  string // name of the result with repository and digest
}

func splits() []split {
	return []split{
		{"tekton", func(t *testing.T, image, source string, secrets map[string]string) []*Pod {
			t.Helper()
			list, err := TektonSteps(splitFile, TaskRun{
				Params:     map[string]string{"IMAGE": image, "CACHE": "true", "CACHE_REPO": image[:strings.LastIndex(image, ":")] + "/cache"},
				Workspaces: map[string]string{"source": source}, Secrets: secrets,
			}, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return list
		}, "IMAGE_REF"},
		{"argo", func(t *testing.T, image, source string, secrets map[string]string) []*Pod {
			t.Helper()
			list, err := ArgoContainers(workflowFile, "split", Call{
				Parameters: map[string]string{"image": image, "cache": "true", "cache-repo": image[:strings.LastIndex(image, ":")] + "/cache"},
				Artifacts:  map[string]string{"context": source}, Secrets: secrets,
			}, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return list
		}, "image-ref"},
	}
}

// TestSplit runs the three steps against a registry that nobody may read without the password for pulls, and nobody may write without the
// one for pushes. The build has neither: nothing in its environment or on its volumes is or leads to one. A second build takes its layer from the cache.
func TestSplit(t *testing.T) {
	step := binary(t)
	const pull, push = "the password for pulls", "the password for pushes"
	host := serve(t, func(r *http.Request) bool {
		_, password, _ := r.BasicAuth()
		return password == push || password == pull && (r.Method == http.MethodGet || r.Method == http.MethodHead)
	})
	base, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	auth := func(password string) string { return base64.StdEncoding.EncodeToString([]byte("u:" + password)) }
	if err := remote.Write(tag(t, host+"/base:1"), base, remote.WithTransport(with{auth(push)})); err != nil {
		t.Fatal(err)
	}
	secret := func(password string) string {
		return directory(t, map[string]string{".dockerconfigjson": fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth(password))})
	}
	secrets := map[string]string{"registry-pull": secret(pull), "registry-push": secret(push)}
	source := directory(t, map[string]string{"Dockerfile": "FROM " + host + "/base:1\nCOPY Dockerfile /\n"})
	for _, s := range splits() {
		t.Run(s.name, func(t *testing.T) {
			image := host + "/" + s.name + "/app:1"
			for _, want := range []string{"not in the cache", "cached"} {
				list := s.pods(t, image, source, secrets)
				var log string
				for _, p := range list {
					code, _, stderr := run(t, p, step)
					if code != 0 {
						t.Fatalf("%s: exit code %d\n%s", p.Name, code, stderr)
					}
					if p.Name == "build" {
						log = stderr
						checkBlind(t, p, secrets)
					}
				}
				if !strings.Contains(log, want) {
					t.Errorf("%q is not in the log of the build:\n%s", want, log)
				}
				got, err := list[len(list)-1].Results()
				if err != nil {
					t.Fatal(err)
				}
				digest, err := remote.Head(tag(t, image), remote.WithTransport(with{auth(pull)}))
				if err != nil {
					t.Fatal(err)
				}
				if want := host + "/" + s.name + "/app@" + digest.Digest.String(); got[s.ref] != want {
					t.Errorf("results %v, want %s", got, want)
				}
			}
		})
		t.Run(s.name+"/without warm", func(t *testing.T) {
			list := s.pods(t, host+"/"+s.name+"/alone:1", source, secrets)
			if code, _, stderr := run(t, list[1], step); code != 6 {
				t.Errorf("%s: exit code %d, want 6: the base is for nobody without a password\n%s", list[1].Name, code, stderr)
			}
		})
	}
}

// checkBlind holds that a pod has no way to a secret.
func checkBlind(t *testing.T, p *Pod, secrets map[string]string) {
	t.Helper()
	for _, m := range p.mounts {
		if slices.Contains(slices.Collect(maps.Values(secrets)), m.outside) {
			t.Errorf("%s has a secret at %s", p.Name, m.inside)
		}
	}
	for _, e := range p.Env {
		if strings.HasPrefix(e, "DOCKER_CONFIG=") || strings.HasPrefix(e, "REGISTRY_AUTH_FILE=") {
			t.Errorf("%s has %s", p.Name, e)
		}
	}
}

// with is a transport that adds credentials.
type with struct{ auth string }

func (w with) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Basic "+w.auth)
	return http.DefaultTransport.RoundTrip(r)
}
