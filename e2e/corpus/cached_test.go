// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// cachedAll asks for every case and every edit.
var cachedAll = flag.Bool("cached", false, "build all cases with a cache, and after every edit; else a thirtieth of them, another one every day")

// edit changes the inputs of a case without knowing the case; it says whether there was something to change.
type edit struct {
	name   string
	change func(t *testing.T, context string, env map[string]string) bool
}

// inDockerfile replaces what matches.
func inDockerfile(pattern, replacement string) func(*testing.T, string, map[string]string) bool {
	return func(t *testing.T, context string, env map[string]string) bool {
		t.Helper()
		file := cmp.Or(env["KANIKO_DOCKERFILE"], filepath.Join(context, "Dockerfile"))
		text, err := os.ReadFile(file)
		if err != nil {
			return false // it is elsewhere
		}
		changed := regexp.MustCompile(pattern).ReplaceAllString(string(text), replacement)
		if changed == string(text) {
			return false
		}
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		return true
	}
}

// onFiles changes all regular files of a context but its Dockerfiles and secrets, whose contents are no input of a layer.
func onFiles(change func(path string, info fs.FileInfo) error) func(*testing.T, string, map[string]string) bool {
	return func(t *testing.T, context string, env map[string]string) bool {
		t.Helper()
		var some bool
		err := filepath.WalkDir(context, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.Contains(d.Name(), "ocker") || strings.Contains(env["KANIKO_SECRET"]+"\n", "src="+path+"\n") {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			some = true
			return change(path, info)
		})
		if err != nil {
			t.Fatal(err)
		}
		return some
	}
}

// longer adds a line to the files of a context but its secrets, on whose values layers must not depend.
func longer(t *testing.T, context string, env map[string]string) bool {
	t.Helper()
	return onFiles(func(path string, info fs.FileInfo) error {
		if strings.Contains(env["KANIKO_SECRET"], "src="+path) {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("\n")
		return errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime()))
	})(t, context, env)
}

func edits() []edit {
	return []edit{
		{"content", longer},
		{"mode", onFiles(func(path string, info fs.FileInfo) error { return os.Chmod(path, info.Mode()^0o020) })},
		{"time", onFiles(func(path string, info fs.FileInfo) error {
			return os.Chtimes(path, info.ModTime().Add(-time.Hour), info.ModTime().Add(-time.Hour))
		})},
		{"ARG", inDockerfile(`(?m)^(ARG [A-Za-z_]+=)`, "${1}x")},
		{"ENV", inDockerfile(`(?m)^(ENV [A-Za-z_]+=)`, "${1}x")},
		{"heredoc", inDockerfile(`(?m)^(EOF|EOT|END)$`, "\n$1")},
		{"instruction", inDockerfile(`(?m)^(FROM .*)$`, "$1\nWORKDIR /made-by-the-edit")},
		{"base", func(_ *testing.T, _ string, env map[string]string) bool {
			other := regexp.MustCompile(`(?m)^CONFIGURED=(.*)$`).FindStringSubmatch(env["KANIKO_BUILD_ARG"])
			env["KANIKO_BUILD_ARG"] = regexp.MustCompile(`(?m)^BASE=.*$`).ReplaceAllLiteralString(env["KANIKO_BUILD_ARG"], "BASE="+other[1])
			return true
		}},
		{"ignore file", func(t *testing.T, context string, _ map[string]string) bool {
			t.Helper()
			if err := os.WriteFile(filepath.Join(context, ".dockerignore"), []byte("**/a*\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return true
		}},
		{"level", func(_ *testing.T, _ string, env map[string]string) bool {
			env["KANIKO_COMPRESSION_LEVEL"] = "1"
			return true
		}},
	}
}

// TestCorpusCached builds cases with an epoch without a cache, with an empty one and with a full one. The three digests are one, and
// the third build makes nothing again. Then the inputs are edited, one way after the other, and the build with what the cache has by now
// makes what one without a cache makes. Times of builds that a RUN writes into files would differ anyway: such cases are left out by
// building without a cache twice, in different seconds.
func TestCorpusCached(t *testing.T) {
	testenv.NeedRoot(t)
	all := cases(t)
	binary, err := testenv.Compile(t.Context(), testenv.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{world: newWorld(t, binary, false), slots: make(chan struct{}, 2), results: map[string]result{}}
	var compared, edited atomic.Int64
	t.Run("cases", func(t *testing.T) {
		for i, c := range all {
			if c.options.debian || !*cachedAll && i%30 != time.Now().YearDay()%30 {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				r.slots <- struct{}{}
				defer func() { <-r.slots }()
				if dir, builds := r.cached(t, c); dir != "" {
					compared.Add(1)
					if builds {
						edited.Add(r.edited(t, i, c, dir))
					}
				}
			})
		}
	})
	t.Logf("%d cases without a cache, with an empty one and a full one; %d edits of them with a cache and without", compared.Load(), edited.Load())
}

// forCache is how a case is built here.
func (r *runner) forCache(c testCase, p place) map[string]string {
	env := r.environment(c, p)
	env["KANIKO_DESTINATION"] = fmt.Sprintf("%s/cached/%s:1", r.registry.Host, strings.ToLower(c.name))
	env["SOURCE_DATE_EPOCH"] = strconv.Itoa(epoch)
	return env
}

func (r *runner) buildForCache(t *testing.T, env map[string]string, cacheDir string) testenv.Outcome {
	t.Helper()
	env = maps.Clone(env)
	if cacheDir != "" {
		env["KANIKO_CACHE"], env["KANIKO_CACHE_REPO"] = "true", "oci:"+cacheDir
	}
	return testenv.Build{Binary: r.binary, Situation: testenv.PrivilegedRoot(), Env: env}.Run(t)
}

// cached returns the cache that it filled, "" if the case is none that can be compared, and whether the case can be built at all.
func (r *runner) cached(t *testing.T, c testCase) (dir string, builds bool) {
	t.Helper()
	p := c.write(t)
	r.publish(t, c)
	env := r.forCache(c, p)
	want := r.buildForCache(t, env, "")
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	if again := r.buildForCache(t, env, ""); want.Results["IMAGE_DIGEST"] != again.Results["IMAGE_DIGEST"] {
		t.Log("left out: it is another image each time")
		return "", false
	}
	dir = filepath.Join(testenv.Dir(t), "cache")
	cold, warm := r.buildForCache(t, env, dir), r.buildForCache(t, env, dir)
	for what, got := range map[string]testenv.Outcome{"an empty": cold, "a full": warm} {
		if got.Code != want.Code || got.Results["IMAGE_DIGEST"] != want.Results["IMAGE_DIGEST"] {
			t.Errorf("with %s cache exit code %d, %s; without %d, %s\n%s", what, got.Code, got.Results["IMAGE_DIGEST"], want.Code, want.Results["IMAGE_DIGEST"], got.Log)
		}
	}
	if want.Code == 0 && strings.Contains(warm.Log, "not in the cache") {
		t.Errorf("something was made again:\n%s", warm.Log)
	}
	return dir, want.Code == 0
}

// edited makes every edit, or one, of a case whose build is in the cache in dir.
func (r *runner) edited(t *testing.T, number int, c testCase, dir string) (count int64) {
	t.Helper()
	for i, e := range edits() {
		if !*cachedAll && (number/30+time.Now().YearDay())%len(edits()) != i {
			continue
		}
		p := c.write(t)
		env := r.forCache(c, p)
		if !e.change(t, p.context, env) {
			continue
		}
		count++
		warm, cold := r.buildForCache(t, env, dir), r.buildForCache(t, env, "")
		if warm.Code != cold.Code || warm.Results["IMAGE_DIGEST"] != cold.Results["IMAGE_DIGEST"] {
			t.Errorf("%s edited: with the cache exit code %d, %s; without %d, %s\n%s\n%s", e.name, warm.Code, warm.Results["IMAGE_DIGEST"], cold.Code, cold.Results["IMAGE_DIGEST"], warm.Log, cold.Log)
		}
	}
	return count
}
