// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// mutation changes one input of the project at random and says what it did.
type mutation func(t *testing.T, rnd *rand.Rand, dir string, env map[string]string) string

func oneOf[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

// alter replaces text of a file of the context, if it is there.
func alter(t *testing.T, dir, file, from, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return // another mutation has removed it
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strings.Replace(string(b), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, file), contextTime, contextTime); err != nil {
		t.Fatal(err)
	}
}

func inDockerfile(pairs ...[2]string) mutation {
	return func(t *testing.T, rnd *rand.Rand, dir string, _ map[string]string) string {
		t.Helper()
		p := oneOf(rnd, pairs...)
		alter(t, dir, "Dockerfile", p[0], p[1])
		return fmt.Sprintf("Dockerfile: %q for %q", p[1], p[0])
	}
}

func onFile(what string, do func(rnd *rand.Rand, path string) error) mutation {
	return func(t *testing.T, rnd *rand.Rand, dir string, _ map[string]string) string {
		t.Helper()
		file := oneOf(rnd, "a.txt", "dir/x", "dir/y", "bound/b", "tool.sh", "unused")
		if err := do(rnd, filepath.Join(dir, file)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		// What a change does to the time of the directory is not the change.
		for _, d := range []string{".", "dir", "bound"} {
			if err := os.Chtimes(filepath.Join(dir, d), contextTime, contextTime); err != nil {
				t.Fatal(err)
			}
		}
		return what + " of " + file
	}
}

func mutations() []mutation {
	return []mutation{
		onFile("content", func(rnd *rand.Rand, path string) error {
			if _, err := os.Stat(path); err != nil {
				return err
			}
			if err := os.WriteFile(path, fmt.Appendf(nil, "echo %d\n", rnd.IntN(1000)), 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, contextTime, contextTime)
		}),
		onFile("mode", func(rnd *rand.Rand, path string) error {
			return os.Chmod(path, os.FileMode(0o400|rnd.IntN(0o1000))|oneOf(rnd, 0, os.ModeSetuid, os.ModeSetgid, os.ModeSticky))
		}),
		onFile("time", func(rnd *rand.Rand, path string) error {
			at := contextTime.AddDate(0, 0, rnd.IntN(600)-300)
			return os.Chtimes(path, at, at)
		}),
		onFile("name", func(rnd *rand.Rand, path string) error {
			return os.Rename(path, path+oneOf(rnd, "2", "~", " "))
		}),
		onFile("a second name", func(_ *rand.Rand, path string) error {
			_ = os.Remove(path + ".link")
			return os.Link(path, path+".link")
		}),
		onFile("a link in place", func(rnd *rand.Rand, path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink(oneOf(rnd, "a", "/etc/passwd", "../unused"), path)
		}),
		onFile("owner", func(rnd *rand.Rand, path string) error { return os.Lchown(path, rnd.IntN(100), rnd.IntN(100)) }),
		inDockerfile([2]string{"MODE=fast", "MODE=slow"}, [2]string{"MODE=fast", "MODE=fast OTHER=1"}, [2]string{"MODE=fast", "MODE="}),
		inDockerfile([2]string{"VERSION=1", "VERSION=2"}, [2]string{"VERSION=1", "VERSION"}),
		inDockerfile([2]string{"text\n", "other\n"}, [2]string{"text\n", "text\n\n"}, [2]string{"<<EOF /app/here", "<<EOF /app/there"}, [2]string{"<<EOF", "<<'EOF'"}),
		inDockerfile([2]string{"COPY a.txt", "COPY --chown=3:4 a.txt"}, [2]string{"COPY a.txt", "COPY --chmod=0640 a.txt"}, [2]string{"COPY a.txt ./", "COPY a.txt ./b.txt"}, [2]string{"COPY a.txt", "COPY --link a.txt"}),
		inDockerfile([2]string{"COPY dir/", "COPY --exclude=x dir/"}, [2]string{"COPY dir/ ./dir/", "COPY --parents dir/ ./"}, [2]string{"COPY dir/ ./dir/", "ADD dir/ ./dir/"}, [2]string{"COPY dir/ ./dir/", "COPY dir/* ./dir/"}),
		inDockerfile([2]string{"WORKDIR /app", "WORKDIR /other"}, [2]string{"WORKDIR /app", "USER 7:8\nWORKDIR /app"}, [2]string{"WORKDIR /app", "WORKDIR /app/deep"}),
		inDockerfile([2]string{"cat a.txt dir/*", "cat dir/*"}, [2]string{"cat a.txt dir/*", "env && cat a.txt dir/*"}, [2]string{"cat /b/*", "ls -l /b/"}),
		inDockerfile([2]string{"RUN --mount=type=bind", "RUN --network=none --mount=type=bind"}, [2]string{",target=/b cat /b/*", ",target=/c cat /c/*"}, [2]string{"source=bound", "source=dir"}, [2]string{"source=bound,", "source=bound,rw,"}),
		inDockerfile([2]string{"--from=tools /t/out ./out", "--from=tools /t/ ./out"}, [2]string{"--from=tools /t/out ./out", "--from=tools --chown=9 /t/out ./out"}),
		inDockerfile([2]string{"echo $VERSION $MODE >version", "pwd >version"}, [2]string{"echo $VERSION $MODE >version", "id >version"}, [2]string{"RUN echo $VERSION", "SHELL [\"/bin/ash\", \"-c\"]\nRUN echo $VERSION"}),
		inDockerfile([2]string{"LABEL made=1", "LABEL made=2"}, [2]string{"CMD [\"true\"]", "ENTRYPOINT [\"a\"]"}, [2]string{"AS tools", "AS tools\nENV T=1"}),
		func(t *testing.T, rnd *rand.Rand, dir string, _ map[string]string) string {
			t.Helper()
			line := oneOf(rnd, "dir/x", "bound", "unused", "*\n!a.txt\n!dir\n!tool.sh\n!bound", "**/y")
			if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(line+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("ignore file %q", line)
		},
		func(_ *testing.T, rnd *rand.Rand, _ string, env map[string]string) string {
			p := oneOf(rnd, [2]string{"KANIKO_COMPRESSION_LEVEL", "1"}, [2]string{"KANIKO_COMPRESSION", "zstd"}, [2]string{"SOURCE_DATE_EPOCH", "1690000000"}, [2]string{"SOURCE_DATE_EPOCH", "1720000000"},
				[2]string{"KANIKO_IMAGE_FORMAT", "oci"}, [2]string{"KANIKO_LABEL", "a=b"}, [2]string{"TOKEN", "another"}, [2]string{"KANIKO_HOSTNAME", "other"}, [2]string{"KANIKO_NETWORK", "none"})
			env[p[0]] = p[1]
			return p[0] + "=" + p[1]
		},
		func(_ *testing.T, rnd *rand.Rand, _ string, env map[string]string) string {
			p := oneOf(rnd, "VERSION=3", "HTTP_PROXY=http://127.0.0.1:9", "VERSION=", "UNUSED=1")
			env["KANIKO_BUILD_ARG"] += "\n" + p
			return p
		},
	}
}

// withoutRuns is project with a COPY in place of each RUN, which is built several times as fast.
func withoutRuns() files {
	f := project()
	f["Dockerfile"] = strings.NewReplacer(
		"RUN sh /t/tool.sh >/t/out", "COPY tool.sh /t/out",
		"RUN --mount=type=secret,id=token test -s /run/secrets/token && cat a.txt dir/* >all", "COPY a.txt dir/ all/",
		"RUN --mount=type=bind,source=bound,target=/b cat /b/* >bound", "ADD --chown=1:2 bound/ ./bound/",
		"RUN echo $VERSION $MODE >version", "COPY unused ./$VERSION-$MODE",
	).Replace(f["Dockerfile"])
	return f
}

var onePair = flag.Int("pair", -1, "the one pair of TestProperty to try, in the project with RUNs; its inputs and logs are printed")

// TestProperty: whatever input changes, a build that may use everything that earlier ones left in the cache gives what one without a cache
// gives, a failure included. In a sample RUNs are in every sixth pair.
func TestProperty(t *testing.T) {
	w := newWorld(t)
	pairs := 100
	if *full {
		pairs = 2000
	}
	repo := "oci:" + filepath.Join(testenv.Dir(t), "cache")
	if *onePair >= 0 {
		w.pair(t, repo, *seed, *onePair, project())
		return
	}
	kept, err := os.ReadFile("testdata/kept")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(kept)) {
		var s uint64
		var i int
		if _, err := fmt.Sscan(line, &s, &i); err != nil {
			continue // a comment
		}
		w.pair(t, repo, s, i, project())
	}
	t.Run("pairs", func(t *testing.T) {
		for worker := range 2 {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for i := worker; i < pairs; i += 2 {
					of := withoutRuns()
					if *full || i/2%6 == 0 {
						of = project()
					}
					w.pair(t, repo, *seed, i, of)
				}
			})
		}
	})
	t.Logf("%d pairs, of which %d are images, with %d layers from the cache", pairs, w.images.Load(), w.hits.Load())
	if int(w.images.Load()) < pairs/2 || int(w.hits.Load()) < pairs {
		t.Error("too few of them say anything")
	}
}

// pair is one try; of several mutations that give a wrong image, those are left out again without which it is wrong still.
func (w *world) pair(t *testing.T, repo string, seed uint64, i int, of files) {
	t.Helper()
	n := 1 + i%3
	all := mutations()
	chosen := make([]int, n)
	for k := range chosen {
		chosen[k] = rand.New(rand.NewPCG(seed, uint64(i*8+k))).IntN(len(all))
	}
	wrong, what := w.wrong(t, repo, seed, i, chosen, of)
	if wrong == "" {
		return
	}
	for k := 0; k < len(chosen) && len(chosen) > 1; {
		fewer := slices.Delete(slices.Clone(chosen), k, k+1)
		if again, text := w.wrong(t, repo, seed, i, fewer, of); again != "" {
			chosen, wrong, what = fewer, again, text
			continue
		}
		k++
	}
	t.Errorf("seed %d, pair %d (add them to testdata/kept): %s: %s", seed, i, what, wrong)
}

func (w *world) wrong(t *testing.T, repo string, seed uint64, i int, chosen []int, of files) (wrong, what string) {
	t.Helper()
	dir := testenv.Dir(t)
	of.write(t, dir)
	env := with(cached(repo), "KANIKO_SECRET", "id=token,env=TOKEN", "TOKEN", "hidden", "KANIKO_NO_PUSH", "true", "KANIKO_BUILD_ARG", "BASE="+w.base)
	var said []string
	for _, m := range chosen {
		said = append(said, mutations()[m](t, rand.New(rand.NewPCG(seed, uint64(i*100+m))), dir, env))
	}
	what = strings.Join(said, "; ")
	warm := w.build(t, dir, w.host+"/property:1", env)
	cold := w.build(t, dir, w.host+"/property:1", with(env, "KANIKO_CACHE", "", "KANIKO_CACHE_REPO", ""))
	if *onePair >= 0 {
		t.Logf("%s\n%s\n%s", what, warm.Log, cold.Log)
	}
	if warm.digest != "" {
		w.images.Add(1)
		w.hits.Add(int64(len(warm.cached)))
	}
	if warm.Code != cold.Code || warm.digest != cold.digest {
		return fmt.Sprintf("with the cache exit code %d, %s; without %d, %s\n%s\n%s", warm.Code, warm.digest, cold.Code, cold.digest, warm.Log, cold.Log), what
	}
	return "", what
}
