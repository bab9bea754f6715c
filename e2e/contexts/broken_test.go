// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// wire passes connections on to a server, and breaks them once: when so many bytes have come from it, however many
// connections that took.
type wire struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	left   int64
	broken bool
	passed int64
	then   func()
}

// newWire makes a wire to the server of a URL, and returns it with the URL that leads through it.
func newWire(t *testing.T, url string, left int64) (*wire, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	u, err := neturl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: u.Host, left: left}
	go w.accept()
	u.Host = l.Addr().String()
	return w, u.String()
}

// onBreak says what is done when the wire breaks, before anybody can notice.
func (w *wire) onBreak(then func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.then = then
}

func (w *wire) accept() {
	for {
		c, err := w.listener.Accept()
		if err != nil {
			return
		}
		go w.serve(c)
	}
}

func (w *wire) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	s, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.Close()
	}()
	buf := make([]byte, 4096)
	for {
		n, err := s.Read(buf)
		pass, cut := w.take(n)
		if _, werr := c.Write(buf[:pass]); werr != nil || err != nil || cut {
			return
		}
	}
}

// take says how many bytes go through, and whether the wire breaks then.
func (w *wire) take(n int) (pass int, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.broken && w.left >= 0 && int64(n) >= w.left {
		w.broken = true
		if w.then != nil {
			w.then()
		}
		return int(w.left), true
	}
	if !w.broken {
		w.left -= int64(n)
	}
	w.passed += int64(n)
	return n, false
}

// count is how many bytes came from the server.
func (w *wire) count() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passed
}

// TestCut breaks the connection at 20 places of each kind. What has versions is gone on with and gives the right image;
// what has not ends with exit 5, unless it was the beginning that was lost, which is simply asked for again.
func TestCut(t *testing.T) {
	w := newWorld(t)
	want := digest(t, build(t, w.dir, nil, ""))
	s3, google := w.stores(t)
	ssh := newSSH(t)
	n := w.clouds(t, s3, google)
	none := nobody(t)
	byName := func(through string) map[string]string {
		env := n.env()
		maps.Copy(env, none)
		env["HTTPS_PROXY"] = through
		return env
	}
	kinds := []struct {
		name, url, location string
		env                 func(through string) map[string]string
		resumes             bool
	}{
		{name: "http", url: w.web(t, "", true), location: "/context.tar.gz", resumes: true},
		{name: "http, without versions", url: w.web(t, "", false), location: "/context.tar.gz"},
		{name: "git", url: w.git(t), resumes: true, env: func(string) map[string]string { return gitLogin() }},
		{name: "git, only the older protocol", url: w.gitBy(t, protocols()["v0"]), resumes: true, env: func(string) map[string]string { return gitLogin() }},
		{name: "ssh", url: ssh.address + filepath.Join(w.repositories, "context.git"), resumes: true, env: ssh.envAt},
		{name: "s3", url: s3, location: "s3://bucket/context.tar.gz", resumes: true, env: func(through string) map[string]string {
			return awsEnv(through)
		}},
		{name: "gs", url: google, location: "gs://bucket/context.tar.gz", resumes: true, env: func(through string) map[string]string {
			return map[string]string{"STORAGE_EMULATOR_HOST": through}
		}},
		{name: "s3 by its name", url: n.proxy, location: "s3://bucket/context.tar.gz", resumes: true, env: byName},
		{name: "gs by its name", url: n.proxy, location: "gs://public/context.tar.gz", resumes: true, env: byName},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			if strings.HasPrefix(k.name, "s3") || strings.HasPrefix(k.name, "gs") {
				needStores(t)
			}
			run := func(left int64) (*wire, testenv.Outcome) {
				x, through := newWire(t, k.url, left)
				env := map[string]string{}
				if k.env != nil {
					env = k.env(through)
				}
				location := k.location
				if !strings.Contains(location, "://") {
					location = through + location
				}
				return x, build(t, location, env, "")
			}
			whole, o := run(-1)
			if digest(t, o) != want {
				t.Fatal("another image without a break")
			}
			for i := range int64(20) {
				at := whole.passed * i / 20
				x, o := run(at)
				switch {
				case !x.broken:
					t.Errorf("at %d: the wire did not break", at)
				case o.Code == 5 && !k.resumes && at > 0:
					if len(o.Results) > 0 {
						t.Errorf("at %d: results of a build that failed: %v", at, o.Results)
					}
				case o.Code != 0 || o.Results["IMAGE_DIGEST"] != want || len(o.Left) > 0:
					t.Errorf("at %d of %d: exit %d, left %v: %s", at, whole.passed, o.Code, o.Left, o.Log)
				}
			}
		})
	}
}

// TestChanged replaces the file while it is read.
func TestChanged(t *testing.T) {
	w := newWorld(t)
	var asked int
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked++
		rw.Header().Set("ETag", fmt.Sprintf(`"%d"`, asked))
		http.ServeFile(rw, r, filepath.Join(w.objects, "context.tar.gz"))
	}))
	defer s.Close()
	_, through := newWire(t, s.URL, 100_000)
	o := build(t, through+"/context.tar.gz", nil, "")
	if o.Code != 5 || !strings.Contains(o.Cause, "changed while it was read") {
		t.Errorf("exit %d: %s", o.Code, o.Cause)
	}
}

// TestNobodyThere asks servers that are not there, for which there is half a minute's patience.
func TestNobodyThere(t *testing.T) {
	testenv.Need(t, "ssh-keygen")
	home := testenv.Dir(t)
	key := newKey(t, home, "key")
	host, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(home, ".ssh", "known_hosts"), "["+strings.Replace(nowhere, ":", "]:", 1)+" "+string(host))
	logins := []login{
		{name: "http", location: "http://" + nowhere + "/context.tar.gz"},
		{name: "git", location: "http://" + nowhere + "/context.git"},
		{name: "ssh", location: "ssh://git@" + nowhere + "/context.git", env: map[string]string{"HOME": home, "KANIKO_SSH": "default=" + key}},
		{name: "s3", location: "s3://bucket/context.tar.gz", env: awsEnv("http://" + nowhere)},
		{name: "gs", location: "gs://bucket/context.tar.gz", env: map[string]string{"STORAGE_EMULATOR_HOST": nowhere}},
		{name: "azure", location: "http://" + nowhere + "/account/container/context.tar.gz", env: azureEnv("http://" + nowhere + "/account")},
	}
	if !*full {
		logins = logins[2:3]
	}
	for _, l := range logins {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.code, l.says = 5, "connection refused"
			l.try(t, "", []string{azuriteKey})
		})
	}
}

// TestFailures has one line and the right code for each.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	web, git, private := w.web(t, "", true), w.git(t), w.web(t, "Bearer secret", true)
	s3, google := w.stores(t)
	amazon := map[string]string{"S3_ENDPOINT": s3, "S3_FORCE_PATH_STYLE": "true"}
	wrong := gitLogin()
	wrong["GIT_PASSWORD"] = "hunter2"
	liar := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Goog-Hash", "crc32c=AAAAAA==")
		http.ServeFile(rw, r, filepath.Join(w.objects, "context.tar.gz"))
	}))
	defer liar.Close()
	denied := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/xml")
		rw.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(rw, "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Token-0>hunter2</Token-0></Error>")
	}))
	defer denied.Close()
	tests := []struct {
		name, location string
		env            map[string]string
		code           int
		says           string
		stores         bool
	}{
		{"no directory", "/nowhere", nil, 2, "/nowhere: no such file or directory", false},
		{"no file", "tar:///nowhere.tar", nil, 2, "no such file or directory", false},
		{"a directory as an archive", "tar://" + w.dir, nil, 2, "it is a directory", false},
		{"no such page", web + "/nothing", nil, 2, "404", false},
		{"no login", private + "/context.tar", nil, 6, "no credential was given for 127.0.0.1", false},
		{"a private file", "http://alice:hunter2@" + strings.TrimPrefix(private, "http://") + "/context.tar", nil, 6, "the credential for 127.0.0.1 was not accepted", false},
		{"a web page", w.web(t, "", true) + "/page", nil, 2, "a web page, and neither an archive nor a Dockerfile", false},
		{"a key that git URLs have not", git + "?brnch=x", gitLogin(), 2, "brnch", false},
		{"no archive", w.web(t, "", true) + "/noise", nil, 2, "neither a tar archive", false},
		{"no repository", strings.Replace(git, "context", "other", 1), gitLogin(), 2, "there is no such repository", false},
		{"no branch", git + "#nothing", gitLogin(), 2, "does not contain ref nothing", false},
		{"no commit", git + "#" + strings.Repeat("12", 20), gitLogin(), 2, strings.Repeat("12", 20), false},
		{"no directory in the repository", git + "#main:nothing", gitLogin(), 2, "nothing", false},
		{"no git login", git, map[string]string{"GIT_PULL_METHOD": "http"}, 6, "no credential was given", false},
		{"wrong git password", git, wrong, 6, "was not accepted", false},
		{"option-like ref", git + "#--upload-pack=touch", gitLogin(), 2, "invalid git ref", false},
		{"another scheme", "ext::sh -c true", nil, 2, "no such file or directory", false},
		{"ssh without a key", "git@127.0.0.1:o/r.git", nil, 2, "needs an ssh agent or key", false},
		{"no object in s3", "s3://bucket/nothing", amazon, 2, "NoSuchKey", true},
		{"no bucket in s3", "s3://nowhere/nothing", amazon, 2, "NoSuchBucket", true},
		{"expired token", "s3://bucket/x", map[string]string{"S3_ENDPOINT": denied.URL, "S3_FORCE_PATH_STYLE": "true"}, 6, "ExpiredToken: The provided token has expired.", false},
		{"no object in gs", "gs://bucket/nothing", map[string]string{"STORAGE_EMULATOR_HOST": google}, 2, "404", true},
		{"wrong sum in gs", "gs://bucket/x", map[string]string{"STORAGE_EMULATOR_HOST": liar.URL}, 8, "its crc32c is", false},
		{"metadata service", "http://169.254.169.254/latest", nil, 2, "link-local or metadata address", false},
	}
	mustWrite(t, filepath.Join(w.objects, "noise"), "\x00\x01\x02")
	mustWrite(t, filepath.Join(w.objects, "page"), "<!DOCTYPE html>\n<title>Sign in</title>\n")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.stores {
				needStores(t)
			}
			o := build(t, tt.location, tt.env, "")
			if o.Code != tt.code || !strings.Contains(o.Cause, tt.says) {
				t.Errorf("exit %d, want %d: %s", o.Code, tt.code, o.Log)
			}
			if strings.Contains(o.Log, "hunter2") || strings.Contains(o.Log, password) {
				t.Errorf("the log has a password: %s", o.Log)
			}
			if len(o.Results) > 0 || len(o.Left) > 0 {
				t.Errorf("left: %v, %v", o.Results, o.Left)
			}
		})
	}
}
