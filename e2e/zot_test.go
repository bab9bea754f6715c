// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// startZot serves an empty zot on loopback and returns its host. zot does not tell which port it was given, so it gets one
// that was free a moment ago, and another one if somebody else has taken that.
func startZot(t *testing.T) string {
	t.Helper()
	tool, err := exec.CommandContext(t.Context(), "../.ci/tool", "zot").Output()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if host := tryZot(t, strings.TrimSpace(string(tool))); host != "" {
			return host
		}
	}
	t.Fatal("zot ended five times as soon as it was started")
	return ""
}

// tryZot returns "" if zot has ended.
func tryZot(t *testing.T, tool string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	dir := testenv.Dir(t)
	config := filepath.Join(dir, "config.json")
	text := fmt.Sprintf(`{"distSpecVersion":"1.0.1","storage":{"rootDirectory":%q,"dedupe":true},"http":{"address":"127.0.0.1","port":%q},"log":{"level":"error","output":%q}}`,
		filepath.Join(dir, "data"), port, filepath.Join(dir, "log"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), tool, "serve", config)
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = server.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
	})
	tick, limit := time.NewTicker(50*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return ""
		case <-limit:
			t.Fatal("zot does not answer after a minute")
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			select {
			case <-ended: // it was somebody else's answer
				return ""
			default:
				return host
			}
		}
	}
}

// TestZot pushes to a registry that is not of distribution's family: two repositories, a layer cache, and a base from there.
func TestZot(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.Need(t, "go")
	host := startZot(t)
	build := func(dockerfile string, destinations ...string) testenv.Outcome {
		source := files{"Dockerfile": dockerfile, "a": "a\n", "big": strings.Repeat("0123456789abcdef", 1<<17)}.write(t)
		o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: map[string]string{
			"KANIKO_CONTEXT": source, "KANIKO_DESTINATION": strings.Join(destinations, "\n"), "KANIKO_CACHE": "true", "KANIKO_CACHE_REPO": host + "/cache",
			"SOURCE_DATE_EPOCH": "1700000000",
		}}.Run(t)
		if o.Code != 0 {
			t.Fatalf("exit code %d\n%s", o.Code, o.Log)
		}
		return o
	}
	first := build("FROM scratch\nCOPY big /\nCOPY a /\n", host+"/team/app:1", host+"/other/app:2")
	again := build("FROM scratch\nCOPY big /\nCOPY a /\n", host+"/team/app:1", host+"/other/app:2")
	if first.Results["IMAGE_DIGEST"] != again.Results["IMAGE_DIGEST"] || strings.Count(again.Log, ", cached, ") != 2 {
		t.Errorf("%s, then %s\n%s", first.Results["IMAGE_DIGEST"], again.Results["IMAGE_DIGEST"], again.Log)
	}
	build("FROM "+host+"/other/app:2\nCOPY a /b\n", host+"/third/app:3")
	for _, image := range []string{"/team/app:1", "/other/app:2", "/third/app:3"} {
		if _, err := testenv.Pull(t.Context(), host+image); err != nil {
			t.Error(err)
		}
	}
}
