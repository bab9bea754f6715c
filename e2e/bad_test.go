// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// failure is an input that must not pass.
type failure struct {
	name       string
	dockerfile string // none at all when empty
	context    files
	env        map[string]string
	situation  testenv.Situation
	prepare    func(t *testing.T, directory string, env map[string]string)
	code       int
	cause      []string // all in the last line
	log        []string // all somewhere in the log
	notLog     string   // must not be in the log
	within     time.Duration
}

func failures(w world) []failure {
	const from = "ARG BASE\nFROM ${BASE}\n"
	root := testenv.DefaultRoot()
	return []failure{
		{name: "no Dockerfile", code: 2, cause: []string{"Dockerfile"}, context: files{"a": "a"}},
		{name: "no context", dockerfile: from, env: map[string]string{"KANIKO_CONTEXT": "/nowhere/at/all"}, code: 2, cause: []string{"/nowhere"}},
		{name: "empty Dockerfile", dockerfile: "\n# nothing\n", code: 3, cause: []string{"Dockerfile"}},
		{name: "unknown instruction", dockerfile: from + "RUUN true\n", code: 3, cause: []string{"Dockerfile:3", "RUUN", "RUN"}, log: []string{">>> RUUN true"}},
		{name: "unknown flag", dockerfile: from + "COPY --chowm=1 a /a\n", context: files{"a": "a"}, code: 3, cause: []string{"Dockerfile:3", "chowm", "chown"}, log: []string{">>> COPY --chowm=1 a /a"}},
		{name: "unknown target", dockerfile: from, env: map[string]string{"KANIKO_TARGET": "nope"}, code: 3, cause: []string{"nope"}},
		{name: "unsupported syntax", dockerfile: from + "RUN --security=insecure true\n", code: 3, cause: []string{"Dockerfile:3", "insecure"}},
		{name: "missing source", dockerfile: from + "COPY missing.txt /x\n", context: files{"other": ""}, code: 4, cause: []string{"Dockerfile:3", "missing.txt", "not found"}},
		{name: "ignored source", dockerfile: from + "COPY hidden.txt /x\n", context: files{"hidden.txt": "", ".dockerignore": "*.txt\n"}, code: 4, cause: []string{"Dockerfile:3", "hidden.txt", "not found", "ignore file"}},
		{name: "missing source beside an ignore file", dockerfile: from + "COPY missing /x\n", context: files{"other": "", ".dockerignore": "*.txt\n"}, code: 4, cause: []string{"Dockerfile:3", `"/missing": not found`}, notLog: "ignore file excludes"},
		{name: "missing named context", dockerfile: from + "COPY --from=more a /a\n", env: map[string]string{"KANIKO_BUILD_CONTEXT": "more=/nowhere/at/all"}, code: 2, cause: []string{"Dockerfile:3", "named context more", "/nowhere"}},
		{name: "no stage to be made anew", dockerfile: from + "FROM ${BASE} AS tools\n", env: map[string]string{"KANIKO_NO_CACHE": "tool"}, code: 2, cause: []string{"KANIKO_NO_CACHE=tool", "tools"}},
		{name: "source above the context", dockerfile: from + "COPY ../secret /x\n", context: files{"other": ""}, code: 4, cause: []string{"Dockerfile:3", "secret", "not found"}},
		{name: "missing source in a stage", dockerfile: "ARG BASE\nFROM ${BASE} AS one\nFROM ${BASE}\nCOPY --from=one /gone /x\n", code: 4, cause: []string{"Dockerfile:4", "/gone", "not found"}},
		{
			name: "unreadable file", dockerfile: from + "COPY . /all/\n", context: files{"private": "x"}, situation: testenv.Restricted(), code: 4, cause: []string{"private", "permission denied"},
			prepare: func(t *testing.T, directory string, _ map[string]string) {
				t.Helper()
				if err := os.Chmod(filepath.Join(directory, "private"), 0); err != nil {
					t.Fatal(err)
				}
			},
		},
		{name: "RUN fails", dockerfile: from + "RUN echo before && \\\n    exit 7\nRUN echo never-run > /x\n", code: 4, cause: []string{"Dockerfile:3-4", "exit code: 7"}, log: []string{"before"}, notLog: "] RUN echo never-run"},
		{name: "RUN is killed", dockerfile: from + "RUN kill -9 $$\n", code: 4, cause: []string{"Dockerfile:3", "137"}},
		{name: "RUN is not there", dockerfile: from + "RUN [\"/no/such/program\"]\n", code: 4, cause: []string{"Dockerfile:3", "/no/such/program"}},
		{name: "RUN takes too long", dockerfile: from + "RUN sleep 100\n", env: map[string]string{"KANIKO_RUN_TIMEOUT": "1s"}, code: 4, cause: []string{"Dockerfile:3", "timed out"}, within: 15 * time.Second},
		{name: "one of two stages fails", dockerfile: "ARG BASE\nFROM ${BASE} AS bad\nRUN sleep 1; exit 3\nFROM ${BASE} AS slow\nRUN sleep 100\nFROM ${BASE}\nCOPY --from=bad / /a\nCOPY --from=slow / /b\n", code: 4, cause: []string{"Dockerfile:3", "exit code: 3"}, within: 20 * time.Second},
		{name: "base not found", dockerfile: "FROM " + w.Host + "/no/such:image\n", code: 6, cause: []string{"/no/such:image"}},
		{name: "base without registry", dockerfile: "FROM 127.0.0.1:1/no/such:image\n", code: 5, cause: []string{"127.0.0.1:1"}, env: map[string]string{"KANIKO_IMAGE_DOWNLOAD_RETRY": "1"}},
		{name: "registry down", dockerfile: from, env: map[string]string{"KANIKO_DESTINATION": "127.0.0.1:1/x:1", "KANIKO_PUSH_RETRY": "1"}, code: 5, cause: []string{"127.0.0.1:1"}},
		{name: "unknown variable", dockerfile: from, env: map[string]string{"KANIKO_DESTINATIONS": "x", "KANIKO_COMPRESSION": "rar", "KANIKO_NO_PUSH": "perhaps"}, code: 2, log: []string{"KANIKO_DESTINATIONS", "KANIKO_DESTINATION", "rar", "KANIKO_NO_PUSH"}},
		{name: "no destination", dockerfile: from, env: map[string]string{"KANIKO_DESTINATION": ""}, code: 2, cause: []string{"KANIKO_DESTINATION"}},
		{
			name: "results directory is read-only", dockerfile: from + "RUN echo never-run\n", situation: testenv.WithSubordinateIDs(), code: 7, notLog: "] RUN echo never-run",
			prepare: func(t *testing.T, _ string, env map[string]string) {
				t.Helper()
				env["KANIKO_RESULTS_DIR"] = testenv.Dir(t) // root's
			},
		},
		{
			name: "results directory is below a file", dockerfile: from + "RUN echo never-run\n", code: 7, notLog: "] RUN echo never-run",
			prepare: func(_ *testing.T, directory string, env map[string]string) {
				env["KANIKO_RESULTS_DIR"] = filepath.Join(directory, "Dockerfile", "results")
			},
		},
		{
			name: "disk full in RUN", dockerfile: from + "RUN head -c 30000000 /dev/urandom > /big\n", code: 4, cause: []string{"Dockerfile:3"},
			prepare: func(t *testing.T, _ string, env map[string]string) { t.Helper(); env["KANIKO_DIR"] = smallDisk(t, 16) },
		},
		{
			name: "disk full in a layer", dockerfile: from + "RUN head -c 9000000 /dev/urandom > /big\n", code: 7, cause: []string{"no space left"},
			prepare: func(t *testing.T, _ string, env map[string]string) { t.Helper(); env["KANIKO_DIR"] = smallDisk(t, 16) },
		},
		{
			name: "disk full without RUN", dockerfile: from + "COPY . /x/\n", code: 7, cause: []string{"no space left"}, situation: root,
			context: files{"big": noise(24 << 20)},
			prepare: func(t *testing.T, _ string, env map[string]string) { t.Helper(); env["KANIKO_DIR"] = smallDisk(t, 16) },
		},
	}
}

// TestBadInput gives each bad input to the binary. The tag that the destination had before must still be what it was.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	for i, tc := range failures(w) {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			context := files{}
			for name, content := range tc.context {
				context[name] = content
			}
			if tc.dockerfile != "" {
				context["Dockerfile"] = tc.dockerfile
			}
			directory, destination := context.write(t), fmt.Sprintf("%s/bad:%d", w.Host, i)
			before := w.tag(t, destination)
			if tc.situation.Name == "" {
				tc.situation = testenv.DefaultRoot()
			}
			env := w.env(directory, destination, tc.env)
			if tc.prepare != nil {
				tc.prepare(t, directory, env)
			}
			o := testenv.Build{Binary: binary, Situation: tc.situation, Env: env}.Run(t)
			mustFail(t, o, tc.code, tc.cause...)
			for _, text := range tc.log {
				if !strings.Contains(o.Log, text) {
					t.Errorf("the log does not contain %q:\n%s", text, o.Log)
				}
			}
			if tc.notLog != "" && strings.Contains(o.Log, tc.notLog) {
				t.Errorf("the log contains %q:\n%s", tc.notLog, o.Log)
			}
			if tc.within > 0 && o.Wall > tc.within {
				t.Errorf("it took %v", o.Wall)
			}
			if after, err := crane.Digest(destination, crane.Insecure); err != nil || after != before {
				t.Errorf("the tag was at %s and is at %s (%v)", before, after, err)
			}
		})
	}
}

// tag puts the base under a destination, so that a moved tag shows, and returns its digest.
func (w world) tag(t *testing.T, destination string) string {
	t.Helper()
	if err := testenv.Push(context.Background(), w.baseImage, destination); err != nil {
		t.Fatal(err)
	}
	digest, err := w.baseImage.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// smallDisk mounts a file system of so many megabytes.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	dir := filepath.Join(testenv.Dir(t), "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0755", megabytes)); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("the build left something that keeps its directory busy: %v", err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

// noise is text that does not compress.
func noise(n int) string {
	b, x := make([]byte, n), uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

// TestRefusedByRegistry meets registries that answer, but do not take the image.
func TestRefusedByRegistry(t *testing.T) {
	w := newWorld(t)
	directory := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nCOPY a /a\nRUN echo never-run\n", "a": "a"}.write(t)
	guarded := testenv.NewRegistry(t, testenv.RegistryOptions{User: "user", Password: "right"})
	readOnly := testenv.NewRegistry(t, testenv.RegistryOptions{ReadOnly: true})
	denying := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprint(rw, `{"errors":[{"code":"DENIED","message":"no push for you"}]}`)
			return
		}
		registry.New().ServeHTTP(rw, r)
	}))
	t.Cleanup(denying.Close)
	for _, tc := range []struct {
		name, host, auth string
		cause            string
	}{
		{"no password", guarded.Host, "", guarded.Host},
		{"wrong password", guarded.Host, fmt.Sprintf(`{"auths":{%q:{"username":"user","password":"secret-but-wrong"}}}`, guarded.Host), guarded.Host},
		{"push denied", strings.TrimPrefix(denying.URL, "http://"), "", "no push for you"},
		{"read-only registry", readOnly.Host, "", readOnly.Host},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := w.env(directory, tc.host+"/x:1", map[string]string{"KANIKO_PUSH_RETRY": "1"})
			if tc.auth != "" {
				env["DOCKER_AUTH_CONFIG"] = tc.auth
			}
			o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
			mustFail(t, o, 6, tc.cause)
			if strings.Contains(o.Log, "] RUN echo never-run") {
				t.Errorf("the build was done before the push was found to be refused:\n%s", o.Log)
			}
			if strings.Contains(o.Log, "secret-but-wrong") {
				t.Errorf("the log holds the password:\n%s", o.Log)
			}
		})
	}
}

// TestSpecialFilesInContext sees that a FIFO and a socket in the build context keep nobody waiting.
func TestSpecialFilesInContext(t *testing.T) {
	w := newWorld(t)
	directory := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nCOPY . /all/\n", ".dockerignore": "Dockerfile\n.dockerignore\n", "plain": "p"}.write(t)
	if err := syscall.Mkfifo(filepath.Join(directory, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", filepath.Join(directory, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	destination := w.Host + "/special:1"
	o := testenv.Build{Binary: binary, Situation: testenv.Restricted(), Env: w.env(directory, destination, nil)}.Run(t)
	tree, err := testenv.Describe(mustSucceed(t, o, destination), w.baseImage)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(tree, "6    0644 0:0 /all/fifo\n") || !strings.Contains(tree, `/all/plain "p"`) {
		t.Errorf("the image has:\n%s", tree)
	}
	if o.Wall > 20*time.Second {
		t.Errorf("it took %v", o.Wall)
	}
}
