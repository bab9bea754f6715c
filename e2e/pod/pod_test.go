// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kaniko-go/kaniko-go/step/config"
)

const (
	taskFile     = "../../tasks/kaniko-go/kaniko-go.yaml"
	workflowFile = "../../workflows/kaniko-go/kaniko-go.yaml"
	// loader is the name under which the test binary prints the configuration
	// that the step would see, instead of running tests.
	loader = "print-configuration"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == loader {
		args, err := config.ParseArguments(os.Args)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		c, err := args.Load()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// launcher gives the test binary the name under which it is the loader.
func launcher(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), loader)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// binary gives the step: KANIKO_GO_BINARY, or one built from the sources.
func binary(t *testing.T) string {
	t.Helper()
	if b := os.Getenv("KANIKO_GO_BINARY"); b != "" {
		b, err := filepath.Abs(b)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	out := filepath.Join(t.TempDir(), "kaniko-go")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", out, "../../step")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build of the step: %v\n%s", err, text)
	}
	return out
}

// run runs the pod and gives its code and output.
func run(t *testing.T, p *Pod, binary string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	code, err := p.Run(ctx, binary, &out, &errs)
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	return code, out.String(), errs.String()
}

// directory makes a directory with files.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// platform is one way to run the step, so that each test does it in both.
type platform struct {
	name string
	// pod makes a pod with parameters under the names of the Task.
	pod func(t *testing.T, params map[string]string, source, credentials string) *Pod
	// result gives the name of a result of the Task.
	result func(name string) string
	// missing says that the results of a failed run are not there; else they are empty.
	missing bool
}

func kebab(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "-")) }

func platforms() []platform {
	return []platform{
		{
			name: "tekton",
			pod: func(t *testing.T, params map[string]string, source, credentials string) *Pod {
				t.Helper()
				workspaces := map[string]string{"source": source}
				if credentials != "" {
					workspaces["dockerconfig"] = credentials
				}
				p, err := Tekton(taskFile, TaskRun{Params: params, Workspaces: workspaces}, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				return p
			},
			result:  func(name string) string { return name },
			missing: true,
		},
		{
			name: "argo",
			pod: func(t *testing.T, params map[string]string, source, credentials string) *Pod {
				t.Helper()
				call := Call{Parameters: map[string]string{}, Artifacts: map[string]string{"context": source}}
				for name, value := range params {
					call.Parameters[kebab(name)] = value
				}
				if credentials != "" {
					call.Secrets = map[string]string{"docker-config": credentials}
				}
				p, err := Argo(workflowFile, "build", call, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				return p
			},
			result: kebab,
		},
	}
}

// TestConfiguration runs the reader of the configuration in the pod: what the
// YAML sets with only the required parameter must be what the binary takes for
// its defaults, and every parameter must reach its variable.
func TestConfiguration(t *testing.T) {
	load := launcher(t)
	for _, pl := range platforms() {
		t.Run(pl.name, func(t *testing.T) {
			source := directory(t, map[string]string{"Dockerfile": "FROM scratch"})
			credentials := directory(t, map[string]string{".dockerconfigjson": "{}"})
			configuration := func(params map[string]string, credentials string) (c config.Config) {
				t.Helper()
				p := pl.pod(t, params, source, credentials)
				code, stdout, stderr := run(t, p, load)
				if code != 0 {
					t.Fatalf("exit code %d\n%s", code, stderr)
				}
				if err := json.Unmarshal([]byte(stdout), &c); err != nil {
					t.Fatal(err)
				}
				if p.Dir != source {
					t.Errorf("working directory %s, want %s", p.Dir, source)
				}
				return c
			}
			plain := configuration(map[string]string{"IMAGE": "r.example/a:1"}, "")
			empty := map[string]string{}
			for _, v := range config.Variables() {
				if v.Param != "" {
					empty[v.Param] = ""
				}
			}
			empty["IMAGE"] = "r.example/a:1"
			got := configuration(empty, "")
			for _, c := range []*config.Config{&plain, &got} { // paths of the two pods
				c.Dir, c.ResultsDir, c.DockerConfig, c.RegistryAuthFile, c.Home, c.ArgoProgressFile = "", "", "", "", "", ""
			}
			if diff := cmp.Diff(plain, got); diff != "" {
				t.Errorf("empty parameters are not defaults (-default +empty):\n%s", diff)
			}
			if len(plain.BuildArg) != 0 || plain.Compression != config.Gzip {
				t.Errorf("defaults: %+v", plain)
			}

			got = configuration(map[string]string{
				"IMAGE": "r.example/a:1\nr.example/a:2", "BUILD_ARGS": "A=x,y\nB=$(params.IMAGE) {{inputs.parameters.image}}",
				"LABELS": `["one=1","two=2\n3"]`, "DOCKERFILE": "sub/D", "COMPRESSION": "zstd", "SKIP_PUSH": "true", "SOURCE_DATE_EPOCH": "7",
			}, credentials)
			if diff := cmp.Diff(config.List{"r.example/a:1", "r.example/a:2"}, got.Destination); diff != "" {
				t.Error(diff)
			}
			wantArgs := map[string]string{"A": "x,y", "B": "$(params.IMAGE) {{inputs.parameters.image}}"}
			if diff := cmp.Diff(wantArgs, got.BuildArg.Map()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(map[string]string{"one": "1", "two": "2\n3"}, got.Label.Map()); diff != "" {
				t.Error(diff)
			}
			if got.Dockerfile != "sub/D" || got.Compression != config.Zstd || !got.NoPush || got.Epoch() == nil || got.Epoch().Unix() != 7 {
				t.Errorf("%+v", got)
			}
			if want := filepath.Join(credentials, ".dockerconfigjson"); got.CredentialsFile() != want {
				t.Errorf("credentials come from %q, want %q", got.CredentialsFile(), want)
			}
		})
	}
}

// TestRefusals holds that the emulation refuses what the controllers refuse.
func TestRefusals(t *testing.T) {
	source := map[string]string{"source": t.TempDir()}
	image := map[string]string{"IMAGE": "r.example/a:1"}
	tests := []struct {
		name, want string
		run        TaskRun
	}{
		{"no image", "parameter IMAGE has no value", TaskRun{Workspaces: source}},
		{"no source", "workspace source is not bound", TaskRun{Params: image}},
		{"text for an array", `parameter EXTRA_ARGS is of type "array"`, TaskRun{Params: map[string]string{"IMAGE": "a", "EXTRA_ARGS": "--cache"}, Workspaces: source}},
		{"an array for text", `parameter BUILD_ARGS is of type ""`, TaskRun{Params: image, Arrays: map[string][]string{"BUILD_ARGS": {"A=1"}}, Workspaces: source}},
		{"unknown workspace", "no workspace none", TaskRun{Params: image, Workspaces: map[string]string{"source": "/s", "none": "/n"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Tekton(taskFile, tt.run, t.TempDir()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	for want, call := range map[string]Call{
		"input parameter image has no value": {},
		"no input parameter none":            {Parameters: map[string]string{"image": "a", "none": ""}},
		"no input artifact none":             {Parameters: map[string]string{"image": "a"}, Artifacts: map[string]string{"none": "/"}},
	} {
		if _, err := Argo(workflowFile, "build", call, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestBuild builds and pushes with the real binary and compares the results
// with what the registry has.
func TestBuild(t *testing.T) {
	step := binary(t)
	quiet := log.New(io.Discard, "", 0)
	server := httptest.NewServer(registry.New(registry.Logger(quiet)))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	source := directory(t, map[string]string{
		"app/Containerfile": "ARG FILE\nFROM scratch\nARG FILE\nCOPY ${FILE} /\nLABEL made=here\n",
		"app/hello":         "hello\n",
	})
	for _, pl := range platforms() {
		t.Run(pl.name, func(t *testing.T) {
			repo := host + "/" + pl.name
			params := map[string]string{
				"IMAGE": repo + ":1\n" + repo + "/again:2", "CONTEXT": "app", "DOCKERFILE": "Containerfile",
				"BUILD_ARGS": "FILE=hello", "LABELS": "asked=for",
			}
			p := pl.pod(t, params, source, "")
			code, _, stderr := run(t, p, step)
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, stderr)
			}
			digest := pushed(t, repo+":1")
			if again := pushed(t, repo+"/again:2"); again != digest {
				t.Errorf("the destinations have the digests %s and %s", digest, again)
			}
			checkResults(t, pl, p, map[string]string{
				"IMAGE_DIGEST": digest.String(),
				"IMAGE_URL":    repo + ":1",
				"IMAGE_REF":    repo + "@" + digest.String(),
				"IMAGES":       repo + "@" + digest.String() + "\n" + repo + "/again@" + digest.String(),
			})
		})
		t.Run(pl.name+"/no push", func(t *testing.T) {
			repo := host + "/" + pl.name + "-quiet"
			p := pl.pod(t, map[string]string{
				"IMAGE": repo + ":1", "CONTEXT": "app", "DOCKERFILE": "Containerfile", "BUILD_ARGS": "FILE=hello", "SKIP_PUSH": "true",
			}, source, "")
			code, _, stderr := run(t, p, step)
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, stderr)
			}
			got, err := p.Results()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v1.NewHash(got[pl.result("IMAGE_DIGEST")]); err != nil {
				t.Errorf("digest: %v", err)
			}
			delete(got, pl.result("IMAGE_DIGEST"))
			delete(got, pl.result("SOURCE_COMMIT"))
			want := map[string]string{pl.result("IMAGE_URL"): "", pl.result("IMAGE_REF"): "", pl.result("IMAGES"): ""}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
		t.Run(pl.name+"/failure", func(t *testing.T) {
			repo := host + "/" + pl.name + "-failed"
			p := pl.pod(t, map[string]string{"IMAGE": repo + ":1", "DOCKERFILE": "app/none"}, source, "")
			code, _, stderr := run(t, p, step)
			if code != 2 {
				t.Errorf("exit code %d, want 2\n%s", code, stderr)
			}
			if pl.missing {
				checkResults(t, pl, p, map[string]string{})
			} else {
				checkResults(t, pl, p, map[string]string{"IMAGE_DIGEST": "", "IMAGE_URL": "", "IMAGE_REF": "", "IMAGES": ""})
			}
		})
	}
}

// TestCredentials pushes to a registry that asks for a password: the one in the
// workspace or Secret must reach it, and without it the push is refused.
func TestCredentials(t *testing.T) {
	step := binary(t)
	const user, password = "builder", "open sesame"
	quiet := log.New(io.Discard, "", 0)
	inner := registry.New(registry.Logger(quiet))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	source := directory(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	secret := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)
	for _, pl := range platforms() {
		for _, file := range []string{"config.json", ".dockerconfigjson"} {
			t.Run(pl.name+"/"+file, func(t *testing.T) {
				p := pl.pod(t, map[string]string{"IMAGE": host + "/a:1"}, source, directory(t, map[string]string{file: secret}))
				if code, _, stderr := run(t, p, step); code != 0 {
					t.Errorf("exit code %d\n%s", code, stderr)
				}
			})
		}
		t.Run(pl.name+"/none", func(t *testing.T) {
			p := pl.pod(t, map[string]string{"IMAGE": host + "/a:1"}, source, "")
			code, _, stderr := run(t, p, step)
			if code != 6 || strings.Contains(stderr, password) {
				t.Errorf("exit code %d, want 6\n%s", code, stderr)
			}
		})
	}
}

// checkResults compares the results of a pod, under the names of the Task.
func checkResults(t *testing.T, pl platform, p *Pod, want map[string]string) {
	t.Helper()
	named := map[string]string{}
	for name, value := range want {
		named[pl.result(name)] = value
	}
	got, err := p.Results()
	if err != nil {
		t.Fatal(err)
	}
	// There is none of a directory.
	if commit := got[pl.result("SOURCE_COMMIT")]; commit != "" {
		t.Errorf("the commit is %q", commit)
	}
	delete(got, pl.result("SOURCE_COMMIT"))
	if diff := cmp.Diff(named, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

// pushed pulls the image back, checks all of it, and gives its digest.
func pushed(t *testing.T, ref string) v1.Hash {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Errorf("%s: %v", ref, err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"made": "here", "asked": "for"}; !cmp.Equal(want, cfg.Config.Labels) {
		t.Errorf("%s: labels are %v, want %v", ref, cfg.Config.Labels, want)
	}
	if len(cfg.RootFS.DiffIDs) != 1 {
		t.Errorf("%s has %d layers, want 1", ref, len(cfg.RootFS.DiffIDs))
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}
