// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestCorpusCached builds cases with an epoch without a cache, with an empty one and with a full one. The three digests are one, and
// the third build makes nothing again. Times of builds that a RUN writes into files would differ anyway: such cases are left out by
// building without a cache twice, in different seconds.
func TestCorpusCached(t *testing.T) {
	testenv.NeedRoot(t)
	all := cases(t)
	binary, err := testenv.Compile(t.Context(), testenv.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{world: newWorld(t, binary, false), slots: make(chan struct{}, 2), results: map[string]result{}}
	for i, c := range all {
		// CI has another thirtieth of the corpus every day, -buildkit all means everything here too.
		if c.options.debian || *buildkit != "all" && i%30 != time.Now().YearDay()%30 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r.slots <- struct{}{}
			defer func() { <-r.slots }()
			r.cached(t, c)
		})
	}
}

func (r *runner) cached(t *testing.T, c testCase) {
	t.Helper()
	p := c.write(t)
	r.publish(t, c)
	env := r.environment(c, p)
	env["KANIKO_DESTINATION"] = fmt.Sprintf("%s/cached/%s:1", r.registry.Host, strings.ToLower(c.name))
	env["SOURCE_DATE_EPOCH"] = strconv.Itoa(epoch)
	build := func() testenv.Outcome {
		return testenv.Build{Binary: r.binary, Situation: testenv.PrivilegedRoot(), Env: env}.Run(t)
	}
	want := build()
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	if again := build(); want.Results["IMAGE_DIGEST"] != again.Results["IMAGE_DIGEST"] {
		t.Log("left out: it is another image each time")
		return
	}
	env["KANIKO_CACHE"], env["KANIKO_CACHE_REPO"] = "true", "oci:"+filepath.Join(testenv.Dir(t), "cache")
	cold, warm := build(), build()
	for what, got := range map[string]testenv.Outcome{"an empty": cold, "a full": warm} {
		if got.Code != want.Code || got.Results["IMAGE_DIGEST"] != want.Results["IMAGE_DIGEST"] {
			t.Errorf("with %s cache exit code %d, %s; without %d, %s\n%s", what, got.Code, got.Results["IMAGE_DIGEST"], want.Code, want.Results["IMAGE_DIGEST"], got.Log)
		}
	}
	if want.Code == 0 && strings.Contains(warm.Log, "not in the cache") {
		t.Errorf("something was made again:\n%s", warm.Log)
	}
}
