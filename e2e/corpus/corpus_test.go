// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

var (
	update   = flag.Bool("update", false, "write testdata/golden anew with what BuildKit makes (of the cases that run)")
	buildkit = flag.String("buildkit", "", `compare testdata/golden with what BuildKit makes now: "all", or "fifth" of the cases, another one every day`)
	report   = flag.String("report", "", "file that receives one line a case: matched, differing or refused")
	oursToo  = flag.Bool("kaniko-go", true, "build with kaniko-go")
)

// epoch is newer than the contexts and older than the builds.
const epoch = 1712345678

func TestMain(m *testing.M) {
	testenv.Dispatch()
	os.Exit(m.Run())
}

// TestCorpus builds every case with kaniko-go, with an epoch and without, and compares it with what BuildKit made.
func TestCorpus(t *testing.T) {
	testenv.NeedRoot(t)
	all := cases(t)
	binary, err := testenv.Compile(t.Context(), testenv.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{
		world: newWorld(t, binary, slices.ContainsFunc(all, func(c testCase) bool { return c.options.debian })),
		begun: time.Now().Truncate(time.Second), differences: readDifferences(t), slots: make(chan struct{}, 2), results: map[string]result{},
	}
	if *update || *buildkit != "" {
		daemon := testenv.NewBuildKit(t, "../../.ci/tool", r.registry.Host)
		r.buildkit = &daemon
	}
	t.Run("case", func(t *testing.T) {
		for i, c := range all {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				r.slots <- struct{}{}
				defer func() { <-r.slots }()
				r.run(t, c, i)
			})
		}
	})
	r.conclude(t, len(all))
}

// runner builds cases and keeps what came of them.
type runner struct {
	*world
	begun       time.Time // before the first build: layers may be older than the build that they end up in
	buildkit    *testenv.BuildKit
	differences []expected
	slots       chan struct{} // two builds at a time

	oracle  sync.Mutex // one build by BuildKit at a time
	mu      sync.Mutex
	results map[string]result
}

// result is what is reported of a case.
type result struct {
	verdict           string // matched, differing, refused
	aspects           []string
	text              string
	layers, sameBytes int
}

func (r *runner) run(t *testing.T, c testCase, number int) {
	t.Helper()
	p := c.write(t)
	r.publish(t, c)
	if c.options.debian {
		addPackages(t, p.context, c.options.debs)
	}
	want, known := r.golden(t, c)
	stale := c.options.debian && want.debian != r.debian
	today := *buildkit == "all" || *buildkit == "fifth" && number%5 == time.Now().YearDay()%5
	if r.buildkit != nil && (*update || today || stale) {
		fresh := r.byBuildKit(t, c, p)
		switch {
		case *update:
			writeGolden(t, c.name, fresh)
		case !stale:
			for _, d := range compare(want, fresh) {
				t.Errorf("BuildKit does not make what testdata/golden says: %s: %s", d.aspect, d.text)
			}
		}
		want, known, stale = fresh, true, false
	}
	if !*oursToo {
		return
	}
	if !known {
		t.Fatalf("there is no %s yet: go test ./e2e/corpus -run 'TestCorpus/case/%s$' -update", goldenPath(c.name), c.name)
	}
	got := r.byUs(t, c, p)
	if stale {
		// Another Debian than the one that the expectation was made with: the files differ, the rest does not.
		want.epoch.layers, want.plain.layers = got.epoch.layers, got.plain.layers
		want.epoch.diffIDs = got.epoch.diffIDs
	}
	r.judge(t, c, want, got)
}

func (r *runner) golden(t *testing.T, c testCase) (outcome, bool) {
	t.Helper()
	data, err := os.ReadFile(goldenPath(c.name))
	if err != nil {
		return outcome{}, false
	}
	return parseGolden(data), true
}

// judge compares, looks the differences up, and reports.
func (r *runner) judge(t *testing.T, c testCase, want, got outcome) {
	t.Helper()
	res := result{verdict: "matched", layers: len(want.epoch.diffIDs)}
	for i, id := range want.epoch.diffIDs {
		if i < len(got.epoch.diffIDs) && got.epoch.diffIDs[i] == id {
			res.sameBytes++
		}
	}
	list := compare(want, got)
	if c.options.fails && got.err != "" && !strings.Contains(got.err, c.options.phrase) {
		list = append(list, difference{"error", fmt.Sprintf("%q is not in %q", c.options.phrase, got.err)})
	}
	for _, d := range list {
		res.verdict = "differing"
		if d.aspect == "refused" {
			res.verdict = "refused"
		}
		res.aspects = append(res.aspects, d.aspect)
		if reason, ok := r.expects(c.name, d.aspect); ok {
			res.text = "expected: " + reason
			continue
		}
		t.Errorf("%s: %s", d.aspect, d.text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[c.name] = res
}

// byUs builds a case with kaniko-go, twice.
func (r *runner) byUs(t *testing.T, c testCase, p place) outcome {
	t.Helper()
	o := outcome{}
	for _, withEpoch := range []bool{true, false} {
		destination := fmt.Sprintf("%s/ours/%s:%v", r.registry.Host, strings.ToLower(c.name), withEpoch)
		env := r.environment(c, p)
		env["KANIKO_DESTINATION"] = destination
		d := describer{begun: r.begun, base: r.layers, hide: r.hide()}
		if withEpoch {
			env["SOURCE_DATE_EPOCH"], d.epoch = strconv.Itoa(epoch), time.Unix(epoch, 0)
		}
		run := testenv.Build{Binary: r.binary, Situation: testenv.PrivilegedRoot(), Env: env}.Run(t)
		if len(run.Left) > 0 {
			t.Errorf("left behind: %q", run.Left)
		}
		if run.Code != 0 {
			return outcome{err: run.Log, code: run.Code}
		}
		part := r.read(t, destination, d)
		if withEpoch {
			o.epoch = part
		} else {
			o.plain = part
		}
	}
	return o
}

// environment is how a case is built, but for the destination.
func (r *runner) environment(c testCase, p place) map[string]string {
	env := map[string]string{
		"KANIKO_CONTEXT":   p.context,
		"KANIKO_BUILD_ARG": r.lines(c, "build-arg", p), "KANIKO_LABEL": r.lines(c, "label", p), "KANIKO_BUILD_CONTEXT": r.lines(c, "context", p),
		"KANIKO_TARGET": c.options.opts["target"], "KANIKO_PLATFORM": c.options.opts["platform"],
	}
	if c.options.file != "" {
		env["KANIKO_DOCKERFILE"] = filepath.Join(p.context, c.options.file)
	}
	var secrets []string
	for _, s := range c.options.secrets {
		secrets = append(secrets, strings.ReplaceAll(s, "src=", "src="+p.context+"/"))
	}
	env["KANIKO_SECRET"] = strings.Join(secrets, "\n")
	env["KANIKO_SSH"] = strings.Join(r.agents(c), "\n")
	for k, v := range env {
		if v == "" {
			delete(env, k) // a variable of a later version is unknown even when it is empty
		}
	}
	return env
}

// agents are the ssh agents of a case, as both builders take them.
func (r *runner) agents(c testCase) []string {
	var list []string
	for _, id := range c.options.ssh {
		list = append(list, id+"="+r.agent)
	}
	return list
}

// lines are the options of one kind as kaniko-go takes them. Build arguments include the ones of the world.
func (r *runner) lines(c testCase, kind string, p place) string {
	values := r.pairs(c, kind, p)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&b, "%s=%s\n", k, values[k])
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (r *runner) pairs(c testCase, kind string, p place) map[string]string {
	values := map[string]string{}
	if kind == "build-arg" {
		maps.Copy(values, r.args)
	}
	for k, v := range c.options.opts {
		if name, ok := strings.CutPrefix(k, kind+":"); ok {
			v = os.Expand(v, func(name string) string {
				if name == "OTHER" {
					return filepath.Join(p.other, "!dir")
				}
				return r.args[name]
			})
			values[name] = v
		}
	}
	return values
}

func (r *runner) read(t *testing.T, reference string, d describer) description {
	t.Helper()
	image, err := testenv.Pull(context.Background(), reference)
	if err != nil {
		t.Fatal(err)
	}
	description, err := d.describe(image)
	if err != nil {
		t.Fatalf("%s: %v", reference, err)
	}
	return description
}

// expected is one line of testdata/differences.txt: where we differ on purpose.
type expected struct {
	pattern, reason string
	aspects         []string
	used            bool
}

func readDifferences(t *testing.T) []expected {
	t.Helper()
	data, err := os.ReadFile("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []expected
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, " ", 3)
		if len(fields) != 3 {
			t.Fatalf("differences.txt: %q", line)
		}
		list = append(list, expected{pattern: fields[0], aspects: strings.Split(fields[1], ","), reason: fields[2]})
	}
	return list
}

func (r *runner) expects(name, aspect string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.differences {
		e := &r.differences[i]
		if ok, err := filepath.Match(e.pattern, name); err == nil && ok && slices.Contains(e.aspects, aspect) {
			e.used = true
			return e.reason, true
		}
	}
	return "", false
}

// conclude writes the report, and holds differences.txt to being true.
func (r *runner) conclude(t *testing.T, total int) {
	t.Helper()
	if len(r.results) == total {
		for _, e := range r.differences {
			if !e.used {
				t.Errorf("differences.txt: nothing differs as %q says (%s)", e.pattern, strings.Join(e.aspects, ","))
			}
		}
	}
	count := map[string]int{}
	var b strings.Builder
	layers, same := 0, 0
	for _, name := range slices.Sorted(maps.Keys(r.results)) {
		res := r.results[name]
		count[res.verdict]++
		layers, same = layers+res.layers, same+res.sameBytes
		fmt.Fprintf(&b, "%-10s %s %s %s\n", res.verdict, name, strings.Join(slices.Compact(res.aspects), ","), res.text)
	}
	fmt.Fprintf(&b, "%d matched, %d differing, %d refused; with an epoch %d of %d layers have the same diffID\n", count["matched"], count["differing"], count["refused"], same, layers)
	if *report != "" {
		if err := os.WriteFile(*report, []byte(b.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
	t.Logf("\n%s", b.String())
}
