// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const dockerRegistry = "/usr/bin/docker-registry"

// distribution is how the real registry runs. The zero value is plain HTTP for everybody.
type distribution struct {
	http string // lines of its section http
	auth string // its section auth, in one line
}

// startDistribution runs the real registry on loopback.
func startDistribution(t *testing.T, d distribution) (host string) {
	t.Helper()
	if _, err := os.Stat(dockerRegistry); err != nil {
		t.Skipf("no real registry to test with: %v", err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp:\n  addr: 127.0.0.1:0\n%s", filepath.Join(dir, "data"), d.http)
	if d.auth != "" {
		config += "auth: " + d.auth + "\n"
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), dockerRegistry, "serve", file)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return listening(t, log)
}

// listening reads the log until it tells which port the kernel gave; what follows is drained.
func listening(t *testing.T, log io.Reader) (host string) {
	t.Helper()
	told := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
	found := make(chan string, 1)
	go func() {
		var said strings.Builder
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if m := told.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			} else if said.Len() < 4096 {
				said.WriteString(lines.Text() + "\n")
			}
		}
		found <- "it ended:\n" + said.String()
	}()
	select {
	case host = <-found:
	case <-time.After(30 * time.Second):
		t.Fatal("the registry does not listen after 30 s")
	}
	if strings.HasPrefix(host, "it ended") {
		t.Fatal(host)
	}
	return host
}

// The whole way with the server that most people run: probe, push, mount, pull,
// push again, move a tag.
func TestDistribution(t *testing.T) {
	host := startDistribution(t, distribution{})
	ctx := context.Background()
	timing := fast
	timing.RetryBudget, timing.ReadBack = 10*time.Second, 5*time.Second

	var first events
	c := newClient(t, Options{Timing: timing, Progress: first.add})
	if err := c.CheckPush(ctx, host+"/base:1"); err != nil {
		t.Fatal(err)
	}
	base := randomImage(t, 2<<20, 2)
	if _, err := c.Publish(ctx, []string{host + "/base:1", host + "/other/base:1"}, base); err != nil {
		t.Fatal(err)
	}
	// The second repository of the same registry got the blobs by mounting.
	for op, want := range map[string]int{"push": 3, "mount": 3} {
		if n := count(first.ops, op); n != want {
			t.Errorf("%d blobs by %s, want %d: %v", n, op, want, first.ops)
		}
	}

	var second events
	c = newClient(t, Options{Timing: timing, Progress: second.add})
	img, err := c.Resolve(ctx, host+"/base:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img.Image); err != nil {
		t.Error(err)
	}
	// Pushed on from where it was pulled, nothing is sent.
	if _, err := c.Publish(ctx, []string{host + "/app:1"}, img.Image); err != nil {
		t.Fatal(err)
	}
	if n := count(second.ops, "mount"); n < 2 || count(second.ops, "push") > 1 {
		t.Errorf("operations %v, want the layers mounted", second.ops)
	}
	res, err := c.Publish(ctx, []string{host + "/app:1"}, index(t, imageFor(t, amd64)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := newClient(t, Options{Timing: timing}).Resolve(ctx, host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest == img.Digest || len(res.Warnings) > 0 {
		t.Errorf("the tag did not move, or with warnings %q", res.Warnings)
	}
	_, err = c.Resolve(ctx, host+"/absent:1", amd64)
	wantError(t, err, Refused, "404", "MANIFEST_UNKNOWN")
}

func count(list []string, s string) int {
	return len(list) - len(slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s }))
}
