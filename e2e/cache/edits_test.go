// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// The instructions of the project that make layers.
const (
	toolDir    = "WORKDIR /t"
	toolCopy   = "COPY tool.sh /t/"
	toolRun    = "RUN sh /t/tool.sh >/t/out"
	appDir     = "WORKDIR /app"
	copyFile   = "COPY a.txt ./"
	copyDir    = "COPY dir/ ./dir/"
	heredoc    = "COPY <<EOF /app/here"
	runSecret  = "RUN --mount=type=secret,id=token test -s /run/secrets/token && cat a.txt dir/..."
	runBound   = "RUN --mount=type=bind,source=bound,target=/b cat /b/* >bound"
	copyStage  = "COPY --from=tools /t/out ./out"
	runVersion = "RUN echo $VERSION $MODE >version"
)

// project has one of each way by which a layer depends on something.
func project() files {
	return files{
		"Dockerfile": `ARG BASE
FROM ${BASE} AS tools
WORKDIR /t
COPY tool.sh /t/
RUN sh /t/tool.sh >/t/out
FROM ${BASE}
WORKDIR /app
COPY a.txt ./
COPY dir/ ./dir/
COPY <<EOF /app/here
text
EOF
ARG VERSION=1
ENV MODE=fast
RUN --mount=type=secret,id=token test -s /run/secrets/token && cat a.txt dir/* >all
RUN --mount=type=bind,source=bound,target=/b cat /b/* >bound
COPY --from=tools /t/out ./out
RUN echo $VERSION $MODE >version
LABEL made=1
CMD ["true"]
`,
		"tool.sh": "echo tool\n", "a.txt": "a\n", "dir/x": "x\n", "dir/y": "y\n", "bound/b": "b\n", "unused": "u\n",
	}
}

// edit is one change of the inputs, and what has to be made again because of it.
type edit struct {
	name   string
	change func(t *testing.T, w *world, dir string, env map[string]string)
	// plain and withEpoch are the instructions that are carried out without an epoch, and with one: there a RUN that is made again
	// and comes out identical makes what follows valid again.
	plain, withEpoch []string
	// buildkit says what BuildKit carries out without an epoch, where that is something else; buildkitEpoch, with one, where it does not
	// carry out something that ours does.
	buildkit, buildkitEpoch string
	// says is what the log says of the first miss.
	says string
}

func since(first string) []string {
	all := []string{appDir, copyFile, copyDir, heredoc, runSecret, runBound, copyStage, runVersion}
	for i, in := range all {
		if in == first {
			return all[i:]
		}
	}
	return nil
}

func replace(file, from, to string) func(*testing.T, *world, string, map[string]string) {
	return func(t *testing.T, _ *world, dir string, _ map[string]string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.Contains(string(b), from) {
			t.Fatalf("%s has no %q: %v", file, from, err)
		}
		put(t, dir, file, strings.Replace(string(b), from, to, 1))
	}
}

func put(t *testing.T, dir, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	settle(t, dir)
}

func variable(pairs ...string) func(*testing.T, *world, string, map[string]string) {
	return func(_ *testing.T, w *world, _ string, env map[string]string) {
		for i := 0; i+1 < len(pairs); i += 2 {
			env[pairs[i]] = strings.ReplaceAll(pairs[i+1], "BASE", "BASE="+w.base)
		}
	}
}

// everything is all instructions that make layers.
func everything() []string { return append([]string{toolDir, toolCopy, toolRun}, since(appDir)...) }

// workdirHit is what BuildKit does where it is to use no cache.
const workdirHit = "WORKDIR is taken from the cache all the same"

// inIndex takes the base, or the other one, from an index, in which there is an image of another platform too.
func inIndex(other bool) func(*testing.T, *world, string, map[string]string) {
	return func(t *testing.T, w *world, _ string, env map[string]string) {
		t.Helper()
		base := w.base
		if other {
			base = env["OTHER"]
		}
		env["KANIKO_BUILD_ARG"] = "BASE=" + w.index(t, base)
	}
}

func edits() []edit {
	return []edit{
		{name: "nothing", change: func(*testing.T, *world, string, map[string]string) {}},
		{name: "content", says: "; not in the cache: files changed\n", change: replace("a.txt", "a", "b"), plain: since(copyFile), withEpoch: since(copyFile)},
		{name: "mode", says: "; not in the cache: metadata of files changed\n", change: func(t *testing.T, _ *world, dir string, _ map[string]string) {
			t.Helper()
			if err := os.Chmod(filepath.Join(dir, "a.txt"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, plain: since(copyFile), withEpoch: since(copyFile)},
		{name: "rename", says: "; not in the cache: files changed\n", change: func(t *testing.T, _ *world, dir string, _ map[string]string) {
			t.Helper()
			if err := os.Rename(filepath.Join(dir, "dir/x"), filepath.Join(dir, "dir/z")); err != nil {
				t.Fatal(err)
			}
			settle(t, dir)
		}, plain: since(copyDir), withEpoch: since(copyDir)},
		{name: "ARG", says: "; not in the cache: variable VERSION changed\n", change: variable("KANIKO_BUILD_ARG", "BASE\nVERSION=2"), plain: since(runSecret), withEpoch: []string{runSecret, runBound, runVersion}},
		{name: "default of ARG", change: replace("Dockerfile", "VERSION=1", "VERSION=3"), plain: since(runSecret), withEpoch: []string{runSecret, runBound, runVersion}},
		{name: "ENV", says: "; not in the cache: variable MODE changed\n", change: replace("Dockerfile", "MODE=fast", "MODE=slow"), plain: since(runSecret), withEpoch: []string{runSecret, runBound, runVersion}},
		{name: "heredoc body", says: "; not in the cache: file EOF, files changed\n", change: replace("Dockerfile", "text\n", "other\n"), plain: since(heredoc), withEpoch: since(heredoc)},
		{name: "ignore file hides a copied file", change: func(t *testing.T, _ *world, dir string, _ map[string]string) {
			t.Helper()
			put(t, dir, ".dockerignore", "dir/x\n")
		}, plain: since(copyDir), withEpoch: since(copyDir)},
		{name: "ignore file hides an unused file", change: func(t *testing.T, _ *world, dir string, _ map[string]string) {
			t.Helper()
			put(t, dir, ".dockerignore", "unused\n")
		}},
		{name: "secret value", change: variable("TOKEN", "another")},
		{name: "bound file", says: "; not in the cache: mount 1 files changed\n", change: replace("bound/b", "b", "c"), plain: since(runBound), withEpoch: since(runBound)},
		{name: "bound file in place of another", change: func(t *testing.T, _ *world, dir string, _ map[string]string) {
			t.Helper()
			if err := os.Rename(filepath.Join(dir, "bound/b"), filepath.Join(dir, "bound/c")); err != nil {
				t.Fatal(err)
			}
			settle(t, dir)
		}, plain: since(runBound), withEpoch: []string{runBound}},
		{name: "command", says: "; not in the cache: command changed\n", change: replace("Dockerfile", "echo $VERSION $MODE", "echo $MODE"), plain: []string{"RUN echo $MODE >version"}, withEpoch: []string{"RUN echo $MODE >version"}},
		{name: "tool that says the same", change: replace("tool.sh", "echo", "# a comment\necho"), plain: []string{toolCopy, toolRun}, withEpoch: []string{toolCopy, toolRun}},
		{name: "tool that says another thing", says: "; not in the cache: stage copied from changed\n", change: replace("tool.sh", "tool", "other"), plain: append([]string{toolCopy, toolRun}, since(copyStage)...), withEpoch: append([]string{toolCopy, toolRun}, since(copyStage)...)},
		{name: "time of a file", change: func(t *testing.T, _ *world, dir string, _ map[string]string) {
			t.Helper()
			other := contextTime.Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(dir, "a.txt"), other, other); err != nil {
				t.Fatal(err)
			}
		}, withEpoch: since(copyFile), buildkitEpoch: "nothing: the layer then has the time of an earlier build"},
		{name: "a file newer than the epoch", change: func(t *testing.T, _ *world, dir string, _ map[string]string) {
			t.Helper()
			if err := os.Chtimes(filepath.Join(dir, "dir/x"), time.Now(), time.Now()); err != nil {
				t.Fatal(err)
			}
		}, withEpoch: since(copyDir), buildkitEpoch: "nothing: the layer then has the time of an earlier build"},
		{name: "base", says: "; not in the cache, which has nothing for this base\n", change: func(_ *testing.T, _ *world, _ string, env map[string]string) {
			env["KANIKO_BUILD_ARG"] = "BASE=" + env["OTHER"]
		}, plain: everything(), withEpoch: everything()},
		{name: "the base in an index", change: inIndex(false), buildkit: "everything: it is the index that its base is known by"},
		{name: "another base in an index", change: inIndex(true), plain: everything(), withEpoch: everything()},
		{name: "platform", change: variable("KANIKO_PLATFORM", "linux/amd64/v2"), plain: everything(), withEpoch: everything()},
		{name: "compression level", says: "; not in the cache: compression changed\n", change: variable("KANIKO_COMPRESSION_LEVEL", "9"), plain: everything(), withEpoch: everything(), buildkit: "nothing: layers are compressed again when they are exported", buildkitEpoch: "nothing, likewise"},
		{name: "format of the image", change: variable("KANIKO_IMAGE_FORMAT", "docker")},
		{name: "comments and blanks", change: replace("Dockerfile", "WORKDIR /app\n", "# here\nWORKDIR   /app\n\n")},
		{name: "name of a stage", change: func(t *testing.T, w *world, dir string, env map[string]string) {
			t.Helper()
			replace("Dockerfile", "AS tools", "AS others")(t, w, dir, env)
			replace("Dockerfile", "from=tools", "from=others")(t, w, dir, env)
		}},
		{name: "label, command, user", change: replace("Dockerfile", "LABEL made=1", "LABEL made=2\nUSER 7\nEXPOSE 80")},
		{name: "unused file", change: replace("unused", "u", "v")},
		{name: "proxy", change: variable("KANIKO_BUILD_ARG", "BASE\nHTTP_PROXY=http://127.0.0.1:9")},
		{name: "instruction put in", says: "; not in the cache: files", change: replace("Dockerfile", "COPY dir/", "COPY unused ./\nCOPY dir/"), plain: append([]string{"COPY unused ./"}, since(copyDir)...), withEpoch: append([]string{"COPY unused ./"}, since(copyDir)...)},
		{name: "instruction taken out", says: "; not in the cache: the layers below changed\n", change: replace("Dockerfile", "COPY --from=tools /t/out ./out\n", ""), plain: []string{runVersion}, withEpoch: []string{runVersion}},
		{name: "KANIKO_NO_CACHE of a stage", change: variable("KANIKO_NO_CACHE", "tools"), plain: []string{toolDir, toolCopy, toolRun}, withEpoch: []string{toolDir, toolCopy, toolRun}, buildkit: workdirHit, buildkitEpoch: workdirHit},
		{name: "KANIKO_NO_CACHE", change: variable("KANIKO_NO_CACHE", "true"), plain: everything(), withEpoch: everything(), buildkit: workdirHit, buildkitEpoch: workdirHit},
	}
}

// TestEdits makes every edit of a project that was built with a cache. What is made again is written down, and the image must be the
// one of a build without a cache.
func TestEdits(t *testing.T) {
	w := newWorld(t)
	other := w.otherBase(t)
	slots := make(chan struct{}, 2)
	for i, e := range edits() {
		for way := range 4 {
			withEpoch, local := way&1 > 0, way&2 > 0
			// A sample has each edit in one way, and over the days in all.
			if !*full && way != (i+time.Now().YearDay())%4 {
				continue
			}
			name := e.name + map[bool]string{false: ", times of the build", true: ", epoch"}[withEpoch] + map[bool]string{false: ", registry", true: ", directory"}[local]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				w.edited(t, e, withEpoch, local, other)
			})
		}
	}
}

// nextSecond waits until builds no longer give their files the times of the build before: layers hold whole seconds, and a RUN that is
// made again within the same one comes out identical.
func nextSecond() {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
}

func (w *world) edited(t *testing.T, e edit, withEpoch, local bool, otherBase string) {
	t.Helper()
	dir := testenv.Dir(t)
	project().write(t, dir)
	repo := w.host + "/edits/" + strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(strings.ToLower(t.Name()))
	destination := strings.Replace(repo, "/edits/", "/out/", 1) + ":1"
	if local {
		repo = "oci:" + filepath.Join(testenv.Dir(t), "cache")
	}
	env := with(cached(repo), "KANIKO_SECRET", "id=token,env=TOKEN", "TOKEN", "hidden", "OTHER", otherBase)
	want := e.plain
	if withEpoch {
		want = e.withEpoch
	} else {
		delete(env, "SOURCE_DATE_EPOCH")
	}
	w.mustBuild(t, dir, destination, env)
	e.change(t, w, dir, env)
	if !withEpoch {
		nextSecond()
	}
	warm := w.mustBuild(t, dir, destination, env)
	if d := cmp.Diff(append([]string{}, want...), append([]string{}, warm.made...)); d != "" {
		t.Errorf("made (-want +got):\n%s", d)
	}
	if !strings.Contains(warm.Log, e.says) {
		t.Errorf("the log does not say %q:\n%s", e.says, warm.Log)
	}
	alone := maps.Clone(env)
	for _, k := range []string{"KANIKO_CACHE", "KANIKO_CACHE_REPO", "KANIKO_NO_CACHE"} {
		delete(alone, k)
	}
	cold := w.mustBuild(t, dir, destination+"-cold", alone)
	if withEpoch && warm.digest != cold.digest {
		t.Errorf("the image is %s, without a cache %s", warm.digest, cold.digest)
	}
	if d := cmp.Diff(describe(t, destination+"-cold"), describe(t, destination)); d != "" {
		t.Errorf("image without and with cache (-want +got):\n%s", d)
	}
	again := w.mustBuild(t, dir, destination, with(env, "KANIKO_NO_CACHE", ""))
	if len(again.made) > 0 || withEpoch && again.digest != warm.digest {
		t.Errorf("built again it made %q; %s, before %s", again.made, again.digest, warm.digest)
	}
}

// TestCacheBeginning: what a cache mount holds is no input of a RUN, but the files that it begins with are.
func TestCacheBeginning(t *testing.T) {
	w := newWorld(t)
	dir := testenv.Dir(t)
	const seed, run = "COPY seed /", "RUN --mount=type=cache,target=/c,from=beginning cp /c/seed /seen; touch /c/more"
	files{"Dockerfile": "ARG BASE\nFROM scratch AS beginning\n" + seed + "\nFROM ${BASE}\n" + run + "\n", "seed": "1"}.write(t, dir)
	env := cached("oci:" + filepath.Join(testenv.Dir(t), "cache")) // the mounts live as long as a build
	for _, step := range []struct {
		seed string
		made []string
	}{{"1", []string{seed, run}}, {"1", nil}, {"2", []string{seed, run}}, {"1", nil}} {
		put(t, dir, "seed", step.seed)
		b := w.mustBuild(t, dir, w.host+"/beginning:1", env)
		if d := cmp.Diff(step.made, b.made); d != "" {
			t.Errorf("made (-want +got):\n%s", d)
		}
		if got := fileOf(t, pull(t, w.host+"/beginning:1"), "seen"); got != step.seed {
			t.Errorf("RUN saw %q, want %q", got, step.seed)
		}
	}
}
