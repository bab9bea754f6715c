// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// passing are parts of BuildKit's messages that differ from build to build.
var passing = regexp.MustCompile(`[a-z0-9]{25}::[a-z0-9]{25}|sha256:[0-9a-f]{64}|/tmp/[^ :"]*`)

// byBuildKit builds a case with BuildKit, twice.
func (r *runner) byBuildKit(t *testing.T, c testCase, p place) outcome {
	t.Helper()
	r.oracle.Lock()
	defer r.oracle.Unlock()
	o := outcome{}
	if c.options.debian {
		o.debian = r.debian
	}
	for _, withEpoch := range []bool{true, false} {
		s := testenv.Solve{
			Context: p.context, Options: map[string]string{}, Locals: map[string]string{}, Rewrite: withEpoch,
			Destination: fmt.Sprintf("%s/buildkit/%s:%v", r.registry.Host, strings.ToLower(c.name), withEpoch),
		}
		if c.options.file != "" {
			s.Dockerfile = filepath.Join(p.context, c.options.file)
		}
		for _, kind := range []string{"build-arg", "label"} {
			for k, v := range r.pairs(c, kind, p) {
				s.Options[kind+":"+k] = v
			}
		}
		for k, v := range r.pairs(c, "context", p) {
			if filepath.IsAbs(v) {
				local := "local-" + k
				s.Locals[local], v = v, "local:"+local
			}
			s.Options["context:"+k] = v
		}
		for _, k := range []string{"target", "platform"} {
			if v := c.options.opts[k]; v != "" {
				s.Options[k] = v
			}
		}
		for _, secret := range c.options.secrets {
			s.Secrets = append(s.Secrets, strings.ReplaceAll(secret, "src=", "src="+p.context+"/"))
		}
		s.SSH = r.agents(c)
		d := describer{begun: r.begun, base: r.layers, hide: r.hide()}
		if withEpoch {
			s.Options["build-arg:SOURCE_DATE_EPOCH"], d.epoch = strconv.Itoa(epoch), time.Unix(epoch, 0)
		}
		if err := r.buildkit.Solve(context.Background(), s); err != nil {
			text := strings.NewReplacer(r.hide()...).Replace(passing.ReplaceAllString(err.Error(), "*"))
			if !c.options.fails {
				t.Errorf("BuildKit: %s", text)
			} else if !strings.Contains(text, c.options.phrase) {
				t.Errorf("BuildKit says %q, not %q", text, c.options.phrase)
			}
			o.err = text
			return o
		}
		if c.options.fails {
			t.Error("BuildKit builds it")
		}
		if part := r.read(t, s.Destination, d); withEpoch {
			o.epoch = part
		} else {
			o.plain = part
		}
	}
	return o
}

// addPackages downloads Debian packages with what they need beyond a minimal Debian, once, and links them into "debs".
func addPackages(t *testing.T, directory string, packages []string) {
	t.Helper()
	if len(packages) == 0 {
		return
	}
	cache, err := testenv.CacheDir("debs", "corpus-"+testenv.Suite+"-"+strings.Join(packages, "-"))
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(cache, "*.deb")); len(found) < len(packages) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "download"}, packages...)...)
		cmd.Dir = cache
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apt-get download: %v\n%s", err, out)
		}
	}
	found, err := filepath.Glob(filepath.Join(cache, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(directory, "debs")
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, deb := range found {
		data, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(target, filepath.Base(deb))
		writeFile(t, name, data)
		if err := lutimes(name, contextTime); err != nil {
			t.Fatal(err)
		}
	}
	if err := lutimes(target, contextTime); err != nil {
		t.Fatal(err)
	}
	if err := lutimes(directory, contextTime); err != nil {
		t.Fatal(err)
	}
}
