// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// files serves text by path and counts what it is asked.
func files(t *testing.T, texts map[string]string) (url string, asked *[]string) {
	t.Helper()
	var log []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log = append(log, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		text, ok := texts[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Last-Modified", time.Unix(1_000, 0).UTC().Format(http.TimeFormat))
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(srv.Close)
	return srv.URL, &log
}

func TestAddURL(t *testing.T) {
	h := newHouse(t)
	url, asked := files(t, map[string]string{"/dir/hello.txt": "hello\n"})
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	const sum = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nADD " + url + "/dir/hello.txt /a/\nADD --checksum=" + sum + " " + url + "/dir/hello.txt /b\n"})
	r.Secrets = map[string]Secret{"HTTP_AUTH_TOKEN_" + host: {Value: []byte("sesame")}}
	img := h.build(t, r)
	if d := cmp.Diff("a/ a/hello.txt=hello\n b=hello\n", contents(t, img)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, a := range *asked {
		if !strings.HasSuffix(a, " Bearer sesame") {
			t.Errorf("asked without the secret: %s", a)
		}
	}

	bad := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nADD --checksum=" + strings.Replace(sum, "5891", "6891", 1) + " " + url + "/dir/hello.txt /b\n"})
	if _, err := h.Build(t.Context(), bad); ExitCode(err) != ExitInstruction || !strings.Contains(Cause(err), "Dockerfile:2: ADD: ") {
		t.Errorf("wrong checksum: exit code %d, %v", ExitCode(err), err)
	}
	missing := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nADD " + url + "/nope /b\n"})
	if _, err := h.Build(t.Context(), missing); ExitCode(err) != ExitInstruction || !strings.Contains(Cause(err), "404") {
		t.Errorf("missing file: exit code %d, %v", ExitCode(err), err)
	}
}

func TestNamedContexts(t *testing.T) {
	h := newHouse(t)
	url, _ := files(t, map[string]string{"/file": "remote"})
	base := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY f /from-base\n", "f": "base"})
	base.Output.Layout = filepath.Join(t.TempDir(), "layout")
	base.Output.Destinations = []string{h.host + "/base:1"}
	res, err := h.Build(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	r := h.request(t, map[string]string{"Dockerfile": `
FROM alpine AS never-built
RUN false
FROM by-digest AS one
COPY --from=by-tag /from-base /tagged
COPY --from=dir . /dir/
COPY --from=url /context /url
COPY --from=never-built /x /replaced
COPY --from=registry /from-base /pulled
`})
	r.Contexts = map[string]string{
		"by-digest":   "oci-layout://" + base.Output.Layout + "@" + res.Digest.String(),
		"by-tag":      "oci-layout://" + base.Output.Layout + ":1",
		"dir":         contextDir(t, map[string]string{"a": "A", "b": "B", ".dockerignore": "b\n.dockerignore"}),
		"url":         url + "/file",
		"never-built": contextDir(t, map[string]string{"x": "X"}),
		"registry":    "docker-image://" + h.host + "/base:1",
		"unused":      "/does/not/exist",
	}
	img := h.build(t, r)
	if d := cmp.Diff("dir/ dir/a=A from-base=base pulled=base replaced=X tagged=base url=remote", contents(t, img)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestNamedContextErrors(t *testing.T) {
	h := newHouse(t)
	for value, want := range map[string]string{
		"/does/not/exist":                    "no such file",
		"oci-layout:///does/not/exist:1":     "no such file",
		"oci-layout:///tmp@sha256:zz":        "sha256:zz",
		"docker-image://" + h.host + "/no:1": "404",
	} {
		r := h.request(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY --from=it /a /\n"})
		r.Contexts = map[string]string{"it": value}
		if _, err := h.Build(t.Context(), r); err == nil || !strings.Contains(Cause(err), want) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
}
