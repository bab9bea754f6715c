// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// caching is a world with a directory that outlives builds.
type caching struct {
	world
	dir, source string
}

func newCaching(t *testing.T, dockerfile string) caching {
	t.Helper()
	return caching{newWorld(t), testenv.Dir(t), files{"Dockerfile": "ARG BASE\n" + dockerfile, "seed/s": "seed\n"}.write(t)}
}

// build builds with the directory.
func (c caching) build(t *testing.T, tag string, more map[string]string) testenv.Outcome {
	t.Helper()
	env := c.env(c.source, c.Host+"/app:"+tag, map[string]string{"KANIKO_CACHE_DIR": c.dir})
	for k, v := range more {
		env[k] = v
	}
	return testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
}

// mustBuild is build, which must succeed.
func (c caching) mustBuild(t *testing.T, tag string, more map[string]string) testenv.Outcome {
	t.Helper()
	o := c.build(t, tag, more)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	mustBeClean(t, o)
	return o
}

// mustComplete holds the directory to what it owes at any time nobody is there: nothing half made, nothing locked, every blob sound.
func (c caching) mustComplete(t *testing.T) {
	t.Helper()
	locks, _ := filepath.Glob(filepath.Join(c.dir, "cache-mounts", "*", "*.lock"))
	for _, lock := range locks {
		f, err := os.OpenFile(lock, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			t.Errorf("%s is locked: %v", lock, err)
		}
		_ = f.Close()
	}
	testenv.VerifyBlobs(t, filepath.Join(c.dir, "blobs", "sha256"))
}

// rooms are the directories of all cache mounts.
func (c caching) rooms(t *testing.T) []string {
	t.Helper()
	rooms, err := filepath.Glob(filepath.Join(c.dir, "cache-mounts", "*", "[0-9]*[0-9]"))
	single, _ := filepath.Glob(filepath.Join(c.dir, "cache-mounts", "*", "[0-9]"))
	if err != nil {
		t.Fatal(err)
	}
	return append(single, rooms...)
}

// TestCacheMountsOutlive writes to cache mounts in one build and reads in the next: by id, with what it begins with, with an owner.
func TestCacheMountsOutlive(t *testing.T) {
	c := newCaching(t, `FROM scratch AS seed
COPY seed /seed
FROM $BASE
ARG N
RUN --mount=type=cache,target=/c,id=plain echo $N >>/c/log; echo plain $(cat /c/log)
RUN --mount=type=cache,target=/d,id=seeded,from=seed,source=/seed echo $N >>/d/s; echo seeded $(cat /d/s)
RUN --mount=type=cache,target=/e,id=owned,uid=7,gid=8,mode=0700 echo $N >>/e/log; echo owned $(cat /e/log) $(stat -c '%u %g %a' /e)
RUN --mount=type=cache,target=/f,id=plain,ro echo again $N $(cat /f/log); ! touch /f/x 2>/dev/null
`)
	for n, want := range []string{"plain 0", "plain 0 1"} {
		o := c.mustBuild(t, "1", map[string]string{"KANIKO_BUILD_ARG": "BASE=" + c.base + "\nN=" + fmt.Sprint(n)})
		tail := strings.TrimPrefix(want, "plain")
		for _, line := range []string{want, "seeded seed" + tail, "owned" + tail + " 7 8 700", fmt.Sprintf("again %d%s", n, tail)} {
			if !strings.Contains(o.Log, line+"\n") {
				t.Errorf("build %d: no line %q in\n%s", n, line, o.Log)
			}
		}
	}
	c.mustComplete(t)
	if n := len(c.rooms(t)); n != 3 {
		t.Errorf("%d directories, want 3", n)
	}
	// A stage that is not to be cached begins anew where it says what its cache begins with, as in BuildKit.
	o := c.mustBuild(t, "1", map[string]string{"KANIKO_NO_CACHE": "true", "KANIKO_BUILD_ARG": "BASE=" + c.base + "\nN=9"})
	for _, line := range []string{"plain 0 1 9\n", "owned 9 7 8 700\n"} {
		if !strings.Contains(o.Log, line) {
			t.Errorf("no line %q in\n%s", line, o.Log)
		}
	}
}

// TestCacheMountsReadOnlyDir builds with a directory that cannot be written to: the mounts last as long as the build.
func TestCacheMountsReadOnlyDir(t *testing.T) {
	c := newCaching(t, "FROM $BASE\nRUN --mount=type=cache,target=/c echo x >>/c/log; echo has $(cat /c/log)\nRUN --mount=type=cache,target=/c echo then $(cat /c/log)\n")
	c.mustBuild(t, "1", nil)
	for _, dir := range []string{"blobs/sha256", "cache-mounts", "."} {
		if err := syscall.Mount(filepath.Join(c.dir, dir), filepath.Join(c.dir, dir), "", syscall.MS_BIND, ""); err != nil {
			t.Skipf("no mount can be made here: %v", err)
		}
		full := filepath.Join(c.dir, dir)
		t.Cleanup(func() { _ = syscall.Unmount(full, syscall.MNT_DETACH) })
		if err := syscall.Mount("", full, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	o := c.mustBuild(t, "2", nil)
	if !strings.Contains(o.Log, "has x\n") || !strings.Contains(o.Log, "then x\n") {
		t.Errorf("the mounts of the build are not its own:\n%s", o.Log)
	}
}

// TestCacheMountsOfEight runs eight builds on one directory: shared ones see each other, locked ones never overlap, private ones never meet.
func TestCacheMountsOfEight(t *testing.T) {
	const builds = 8
	c := newCaching(t, `FROM $BASE
ARG N
RUN --mount=type=cache,target=/shared,id=s mkdir /shared/$N
RUN --mount=type=cache,target=/locked,id=l,sharing=locked mkdir /locked/alone && sleep 0.05 && n=$(cat /locked/n 2>/dev/null || echo 0) && echo $((n+1)) >/locked/n && rmdir /locked/alone
RUN --mount=type=cache,target=/private,id=p,sharing=private mkdir /private/alone && sleep 0.2 && rmdir /private/alone && touch /private/$N
`)
	var wg sync.WaitGroup
	outcomes := make([]testenv.Outcome, builds)
	for n := range builds {
		wg.Go(func() {
			outcomes[n] = c.build(t, fmt.Sprint(n), map[string]string{"KANIKO_BUILD_ARG": fmt.Sprintf("BASE=%s\nN=%d", c.base, n)})
		})
	}
	wg.Wait()
	for n, o := range outcomes {
		if o.Code != 0 {
			t.Errorf("build %d: exit code %d\n%s", n, o.Code, o.Log)
		}
	}
	c.mustComplete(t)
	o := c.mustBuild(t, "last", map[string]string{"KANIKO_BUILD_ARG": "BASE=" + c.base + "\nN=last"})
	_ = o
	counts := map[string]int{}
	for _, room := range c.rooms(t) {
		if b, err := os.ReadFile(filepath.Join(room, "n")); err == nil {
			counts["locked"] += 100 // one directory
			if strings.TrimSpace(string(b)) != fmt.Sprint(builds+1) {
				t.Errorf("the locked counter is %s", b)
			}
			continue
		}
		names, err := os.ReadDir(room)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range names {
			kind := "private"
			if e.IsDir() {
				kind = "shared"
			}
			counts[kind]++
		}
		if len(names) == builds+1 && names[0].IsDir() {
			counts["together"]++
		}
	}
	if counts["locked"] != 100 || counts["shared"] != builds+1 || counts["together"] != 1 || counts["private"] != builds+1 {
		t.Errorf("what the builds left: %v", counts)
	}
}

// TestCacheDirKilled kills builds in the middle of everything, and then builds.
func TestCacheDirKilled(t *testing.T) {
	c := newCaching(t, `FROM scratch AS seed
COPY seed /seed
FROM $BASE
RUN --mount=type=cache,target=/l,id=l,sharing=locked --mount=type=cache,target=/c,id=c,from=seed,source=/seed cat /c/s; touch /l/x; echo begun; sleep 1
`)
	for _, at := range []string{"FROM", "COPY seed", "RUN --mount", "begun", "begun"} {
		o := testenv.Build{
			Binary: binary, Situation: testenv.DefaultRoot(), SignalAt: at, Signal: syscall.SIGKILL,
			Env: c.env(c.source, c.Host+"/app:k", map[string]string{"KANIKO_CACHE_DIR": c.dir}),
		}.Run(t)
		if o.Code != 128+int(syscall.SIGKILL) {
			t.Fatalf("killed at %q: exit code %d\n%s", at, o.Code, o.Log)
		}
	}
	// The processes of a RUN die with the builder, but perhaps a moment later.
	start := time.Now()
	o := c.mustBuild(t, "1", nil)
	if time.Since(start) > 30*time.Second || !strings.Contains(o.Log, "seed\n") {
		t.Errorf("after the kills, %v:\n%s", time.Since(start), o.Log)
	}
	c.mustComplete(t)
	half, _ := filepath.Glob(filepath.Join(c.dir, "cache-mounts", "*", ".tmp-*"))
	if len(half) > 0 {
		t.Errorf("half made: %q", half)
	}
}

// TestCacheMountsTravel stores cache mounts in a registry and loads them where the directory is another one.
func TestCacheMountsTravel(t *testing.T) {
	c := newCaching(t, `FROM $BASE
ARG N
RUN --mount=type=cache,target=/c,id=c,uid=3,gid=4,mode=0750 echo $N >>/c/log; mkdir -p /c/d; ln -sf /etc/passwd /c/d/link; ln -f /c/log /c/d/hard; chown 5:6 /c/d; \
 echo has $(cat /c/d/hard) $(readlink /c/d/link) $(stat -c '%u %g' /c/d) $(stat -c '%u %g %a' /c)
`)
	env := map[string]string{"KANIKO_CACHE_MOUNTS": "registry", "KANIKO_CACHE": "true", "KANIKO_CACHE_REPO": c.Host + "/app/cache"}
	run := func(n int, want string, more map[string]string) testenv.Outcome {
		t.Helper()
		all := map[string]string{"KANIKO_BUILD_ARG": fmt.Sprintf("BASE=%s\nN=%d", c.base, n)}
		for _, m := range []map[string]string{env, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		o := c.mustBuild(t, "1", all)
		if line := "has " + want + " /etc/passwd 5 6 3 4 750\n"; !strings.Contains(o.Log, line) {
			t.Errorf("build %d: no line %q in\n%s", n, line, o.Log)
		}
		return o
	}
	run(1, "1", nil)
	c.dir = testenv.Dir(t)
	run(2, "1 2", nil)
	// Without any directory.
	run(3, "1 2 3", map[string]string{"KANIKO_CACHE_DIR": ""})
	// A directory that has the cache is not overwritten.
	run(4, "1 2 4", nil)
	// Nothing is stored where nothing may be, and what is too large is neither stored nor loaded.
	run(5, "1 2 4 5", map[string]string{"KANIKO_CACHE_DIR": "", "KANIKO_NO_PUSH_CACHE": "true"})
	o := run(6, "6", map[string]string{"KANIKO_CACHE_DIR": testenv.Dir(t), "KANIKO_CACHE_MOUNTS_MAX_SIZE": "1"})
	if strings.Count(o.Log, "more than KANIKO_CACHE_MOUNTS_MAX_SIZE") != 2 {
		t.Errorf("two refusals are expected:\n%s", o.Log)
	}
	run(7, "1 2 4 7", map[string]string{"KANIKO_CACHE_DIR": ""})
	// A registry that is gone costs warnings.
	env["KANIKO_CACHE_REPO"] = "127.0.0.1:1/cache"
	o = run(8, "8", map[string]string{"KANIKO_CACHE_DIR": testenv.Dir(t)})
	if !strings.Contains(o.Log, "a cache mount cannot be loaded") || !strings.Contains(o.Log, "is not stored") {
		t.Errorf("no warnings:\n%s", o.Log)
	}
}

// inventory is what mode cache-list prints.
type inventory struct {
	Repositories []struct {
		Name string
		Tags []struct {
			Tag, Base string
			Records   []struct{ Instruction, Layer string }
		}
		CacheMounts []struct{ ID string }
		Records     int
		Size        int64
	}
	Directory *struct {
		Images []struct{ Name string }
		Items  []struct{ Kind, Name, About string }
		Size   int64
	}
}

// list runs mode cache-list.
func (c caching) list(t *testing.T, env map[string]string) inventory {
	t.Helper()
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: with(env, "KANIKO_MODE", "cache-list", "KANIKO_CACHE", "")}.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	var inv inventory
	if err := json.Unmarshal([]byte(o.Stdout), &inv); err != nil {
		t.Fatalf("%v:\n%s", err, o.Stdout)
	}
	return inv
}

func with(env map[string]string, pairs ...string) map[string]string {
	all := map[string]string{}
	for k, v := range env {
		all[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = pairs[i+1]
	}
	return all
}

// TestCacheListAndPrune fills a registry, an oci: directory and the base cache, lists them, and prunes them step by step.
func TestCacheListAndPrune(t *testing.T) {
	for _, noDelete := range []bool{false, true} {
		t.Run(fmt.Sprintf("deletion refused %t", noDelete), func(t *testing.T) {
			c := newCaching(t, "FROM $BASE\nARG N\nRUN --mount=type=cache,target=/c,id=mine echo $N >/c/made >/made\nCOPY seed /seed\n")
			c.Registry = testenv.NewRegistry(t, testenv.RegistryOptions{NoDelete: noDelete})
			c.base = c.Host + "/base:1"
			if err := testenv.Push(context.Background(), c.baseImage, c.base); err != nil {
				t.Fatal(err)
			}
			layers := testenv.Dir(t)
			remote := c.Host + "/app/cache"
			env := map[string]string{"KANIKO_CACHE": "true", "KANIKO_CACHE_REPO": remote + "\noci:" + layers, "KANIKO_CACHE_DIR": c.dir, "KANIKO_CACHE_MOUNTS": "registry"}
			for n := range 2 {
				c.mustBuild(t, "1", with(env, "KANIKO_BUILD_ARG", fmt.Sprintf("BASE=%s\nN=%d", c.base, n)))
			}
			inv := c.list(t, env)
			if len(inv.Repositories) != 2 || inv.Directory == nil {
				t.Fatalf("listed: %+v", inv)
			}
			for _, r := range inv.Repositories {
				if len(r.Tags) != 1 || r.Records < 3 || r.Size == 0 || !strings.HasPrefix(r.Tags[0].Base, c.Host+"/base@sha256:") || len(r.Tags[0].Records) != r.Records {
					t.Errorf("listed: %+v", r)
				}
			}
			if m := inv.Repositories[0].CacheMounts; len(m) != 1 || m[0].ID != "mine" {
				t.Errorf("cache mounts: %+v", m)
			}
			kinds := map[string]int{}
			for _, i := range inv.Directory.Items {
				kinds[i.Kind]++
			}
			if kinds["blob"] == 0 || kinds["cache mount"] != 1 {
				t.Errorf("the directory has %v", kinds)
			}
			prune := func(more ...string) testenv.Outcome {
				return testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: with(with(env, more...), "KANIKO_MODE", "cache-prune", "KANIKO_CACHE", "")}.Run(t)
			}
			// Nothing is old.
			if o := prune(); o.Code != 0 {
				t.Fatalf("exit code %d\n%s", o.Code, o.Log)
			}
			if again := c.list(t, env); again.Repositories[0].Records != inv.Repositories[0].Records || again.Repositories[1].Records != inv.Repositories[1].Records || len(again.Directory.Items) != len(inv.Directory.Items) {
				t.Errorf("pruning what is new left %+v of %+v", again, inv)
			}
			o := c.mustBuild(t, "1", with(env, "KANIKO_BUILD_ARG", "BASE="+c.base+"\nN=1"))
			if strings.Contains(o.Log, "not in the cache") {
				t.Errorf("after pruning nothing, not everything is cached:\n%s", o.Log)
			}
			// Everything is old.
			time.Sleep(2 * time.Second)
			o = prune("KANIKO_CACHE_TTL", "1s", "KANIKO_CACHE_DIR_TTL", "1s")
			switch {
			case noDelete && (o.Code != 6 || !strings.Contains(o.Cause, "does not permit deletion")):
				t.Errorf("exit code %d\n%s", o.Code, o.Log)
			case !noDelete && o.Code != 0:
				t.Errorf("exit code %d\n%s", o.Code, o.Log)
			}
			after := c.list(t, env)
			if after.Repositories[0].Records+after.Repositories[1].Records != 0 || after.Directory.Size != 0 {
				t.Errorf("left: %+v\n%s", after, o.Log)
			}
			if !noDelete && len(after.Repositories[0].Tags)+len(after.Repositories[0].CacheMounts) != 0 {
				t.Errorf("left in the registry: %+v\n%s", after, o.Log)
			}
			c.mustBuild(t, "1", with(env, "KANIKO_BUILD_ARG", "BASE="+c.base+"\nN=1"))
		})
	}
}

// TestCacheDirLimit builds with a size limit that holds only one of two bases: what was not used for longest goes.
func TestCacheDirLimit(t *testing.T) {
	c := newCaching(t, "FROM $BASE\nRUN --mount=type=cache,target=/c,id=big dd if=/dev/zero of=/c/f bs=1024 count=3000 2>/dev/null\n")
	layers := testenv.Dir(t)
	limit := map[string]string{"KANIKO_CACHE": "true", "KANIKO_CACHE_REPO": "oci:" + layers}
	c.mustBuild(t, "1", limit)
	before := c.list(t, with(limit, "KANIKO_CACHE_DIR", c.dir))
	if before.Directory.Size < 3<<20 {
		t.Fatalf("the directory has %d bytes", before.Directory.Size)
	}
	size := before.Directory.Size - (1 << 20)
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: with(limit,
		"KANIKO_CACHE_DIR", c.dir, "KANIKO_MODE", "cache-prune", "KANIKO_CACHE_DIR_MAX_SIZE", fmt.Sprint(size))}.Run(t)
	if o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	if after := c.list(t, with(limit, "KANIKO_CACHE_DIR", c.dir)); after.Directory.Size > size || after.Directory.Size == 0 {
		t.Errorf("%d bytes of %d are left, the limit was %d\n%s", after.Directory.Size, before.Directory.Size, size, o.Log)
	}
	// A build keeps the limit by itself.
	o = c.mustBuild(t, "2", with(limit, "KANIKO_NO_CACHE", "true", "KANIKO_CACHE_DIR_MAX_SIZE", "1k"))
	if after := c.list(t, with(limit, "KANIKO_CACHE_DIR", c.dir)); after.Directory.Size > 1024 || after.Repositories[0].Size > 1024 {
		t.Errorf("%+v is left of a build with a limit of 1k\n%s", after, o.Log)
	}
	c.mustComplete(t)
}

// TestCacheUnpacked builds on a base that is kept unpacked: it is made once, by one of several builds at the same time, stays as it was, and
// the images are those of builds that do not have it.
func TestCacheUnpacked(t *testing.T) {
	c := newCaching(t, "FROM $BASE\nRUN rm /bin/ls && echo x >/bin/new && chmod 700 /tmp; test -e /bin/ls || echo gone >/gone\nCOPY seed /seed\nRUN cat /seed/s /gone >/both\n")
	plain := map[string]string{"SOURCE_DATE_EPOCH": "1700000000", "KANIKO_CACHE_DIR": ""}
	unpacked := with(plain, "KANIKO_CACHE_DIR", c.dir, "KANIKO_CACHE_UNPACKED", "true")
	want := c.mustBuild(t, "1", plain).Results["IMAGE_DIGEST"]
	var wg sync.WaitGroup
	outcomes := make([]testenv.Outcome, 4)
	for n := range outcomes {
		wg.Go(func() { outcomes[n] = c.build(t, fmt.Sprint(n), unpacked) })
	}
	wg.Wait()
	outcomes = append(outcomes, c.mustBuild(t, "again", unpacked))
	for n, o := range outcomes {
		if o.Code != 0 || o.Results["IMAGE_DIGEST"] != want {
			t.Errorf("build %d: exit code %d, %q, want %s\n%s", n, o.Code, o.Results, want, o.Log)
		}
	}
	kept, _ := filepath.Glob(filepath.Join(c.dir, "unpacked", "*", "bin", "ls"))
	written, _ := filepath.Glob(filepath.Join(c.dir, "unpacked", "*", "bin", "new"))
	if len(kept) != 1 || len(written) != 0 {
		t.Errorf("kept %q, written to %q", kept, written)
	}
	if strings.Contains(outcomes[4].Log, "pull sha256:") {
		t.Errorf("the last build pulled what it has unpacked:\n%s", outcomes[4].Log)
	}
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: map[string]string{
		"KANIKO_MODE": "cache-prune", "KANIKO_CACHE_DIR": c.dir, "KANIKO_CACHE_DIR_MAX_SIZE": "1",
	}}.Run(t)
	left, _ := filepath.Glob(filepath.Join(c.dir, "unpacked", "*"))
	if o.Code != 0 || len(left) != 0 {
		t.Errorf("exit code %d, left %q\n%s", o.Code, left, o.Log)
	}
	if o := c.mustBuild(t, "after", unpacked); o.Results["IMAGE_DIGEST"] != want {
		t.Errorf("after pruning: %q", o.Results)
	}
}

// TestCacheMountsInPlace lets builds in place and apart use one directory, which is a volume of its own.
func TestCacheMountsInPlace(t *testing.T) {
	c := newCaching(t, "FROM $BASE\nARG N\nRUN --mount=type=cache,target=/c,id=c,uid=5,mode=0750 mkdir -p /c/d && echo $N >>/c/d/log; chown 6:7 /c/d; echo has $(cat /c/d/log) $(stat -c '%u %g' /c/d) $(stat -c '%u %a' /c)\n"+
		"RUN --mount=type=cache,target=/other,id=c,uid=5,mode=0750,sharing=locked echo then $(cat /other/d/log)\n")
	var seen []string
	for n, inPlace := range []bool{true, true, false, true} {
		args := fmt.Sprintf("BASE=%s\nN=%d", c.base, n)
		seen = append(seen, fmt.Sprint(n))
		var o testenv.Outcome
		if inPlace {
			container := testenv.NewContainer(t, binary)
			container.Mount(t, c.source, "/workspace")
			container.Mount(t, c.dir, "/cache")
			env := c.env("/workspace", c.Host+"/app:1", map[string]string{"KANIKO_CACHE_DIR": "/cache", "KANIKO_ISOLATION": "inplace", "KANIKO_BUILD_ARG": args})
			o = testenv.Build{Container: container, Env: env}.Run(t)
		} else {
			o = c.build(t, "1", map[string]string{"KANIKO_BUILD_ARG": args})
		}
		if o.Code != 0 {
			t.Fatalf("build %d: exit code %d\n%s", n, o.Code, o.Log)
		}
		all := strings.Join(seen, " ")
		for _, line := range []string{"has " + all + " 6 7 5 750\n", "then " + all + "\n"} {
			if !strings.Contains(o.Log, line) {
				t.Errorf("build %d: no line %q in\n%s", n, line, o.Log)
			}
		}
	}
	c.mustComplete(t)
	if rooms := c.rooms(t); len(rooms) != 1 {
		t.Errorf("directories: %q", rooms)
	}
}

// TestCacheDirKilledTogether kills builds on one directory at random, eight at a time, layer cache and unpacked bases included. What they leave serves the next.
func TestCacheDirKilledTogether(t *testing.T) {
	const builds = 8
	c := newCaching(t, "FROM $BASE\nARG N\nRUN --mount=type=cache,target=/c,id=c touch /c/$N; echo $N >/n\nCOPY seed /seed\nRUN --mount=type=cache,target=/l,id=l,sharing=locked sleep 0.1; date >/l/last\n")
	layers := testenv.Dir(t)
	env := map[string]string{
		"KANIKO_CACHE": "true", "KANIKO_CACHE_REPO": "oci:" + layers, "KANIKO_CACHE_UNPACKED": "true", "KANIKO_CACHE_DIR_MAX_SIZE": "1m",
		"SOURCE_DATE_EPOCH": "1700000000",
	}
	lines := []string{"FROM", "pull sha256", "RUN --mount", "COPY seed", "done in", "push sha256", "pushed", "image sha256"}
	var wg sync.WaitGroup
	for n := range builds {
		wg.Go(func() {
			more := with(env, "KANIKO_BUILD_ARG", fmt.Sprintf("BASE=%s\nN=%d", c.base, n%3), "KANIKO_CACHE_DIR", c.dir)
			b := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: c.env(c.source, c.Host+fmt.Sprintf("/app:%d", n), more)}
			if n%4 != 3 {
				b.SignalAt, b.Signal = lines[n], syscall.SIGKILL
			}
			o := b.Run(t)
			if b.Signal == 0 && o.Code != 0 || b.Signal != 0 && o.Code != 0 && o.Code != 128+int(syscall.SIGKILL) {
				t.Errorf("build %d: exit code %d\n%s", n, o.Code, o.Log)
			}
		})
	}
	wg.Wait()
	for n := range 3 {
		args := fmt.Sprintf("BASE=%s\nN=%d", c.base, n)
		o := c.mustBuild(t, "cached", with(env, "KANIKO_BUILD_ARG", args))
		plain := c.mustBuild(t, "plain", map[string]string{"KANIKO_CACHE_DIR": "", "SOURCE_DATE_EPOCH": "1700000000", "KANIKO_BUILD_ARG": args})
		if o.Results["IMAGE_DIGEST"] != plain.Results["IMAGE_DIGEST"] {
			t.Errorf("%d: the image is %q with what killed builds left, and %q without\n%s", n, o.Results, plain.Results, o.Log)
		}
	}
	c.mustComplete(t)
	testenv.VerifyBlobs(t, filepath.Join(layers, "blobs", "sha256"))
}
