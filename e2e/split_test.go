// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestSplit builds in three runs of which only the first and the last have credentials: a private base, a private cache, and a RUN
// in between that can find nothing. The second round takes everything from the cache.
func TestSplit(t *testing.T) {
	w, who := privateWorld(t)
	source := files{"Dockerfile": "FROM " + w.base + " AS build\nRUN date +%N > /made\nFROM " + w.base + "\nCOPY --from=build /made /made\nCOPY a /a\nRUN env > /env; cat /made\n", "a": "a\n"}.write(t)
	volume := testenv.Dir(t)
	destination := w.Host + "/team/app:1"
	layers, remoteCache := "oci:"+filepath.Join(volume, "layers"), w.Host+"/team/app/cache"
	credentials := fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, w.Host, who.user, who.password)
	common := map[string]string{"KANIKO_CONTEXT": source, "SOURCE_DATE_EPOCH": "1700000000", "KANIKO_CACHE_DIR": filepath.Join(volume, "bases"), "KANIKO_CACHE": "true"}
	with := func(more map[string]string) map[string]string {
		for k, v := range common {
			if _, ok := more[k]; !ok {
				more[k] = v
			}
		}
		return more
	}
	round := func(t *testing.T) (build testenv.Outcome, digest string) {
		t.Helper()
		layout := filepath.Join(testenv.Dir(t), "layout")
		warm := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: with(map[string]string{
			"KANIKO_MODE": "warm", "DOCKER_AUTH_CONFIG": credentials, "KANIKO_CACHE_REPO": remoteCache + "\n" + layers,
		})}.Run(t)
		if warm.Code != 0 {
			t.Fatalf("warm: exit code %d\n%s", warm.Code, warm.Log)
		}
		build = testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: with(map[string]string{
			"KANIKO_NO_PUSH": "true", "KANIKO_DESTINATION": destination, "KANIKO_OCI_LAYOUT_PATH": layout, "KANIKO_CACHE_REPO": layers,
		})}.Run(t)
		if build.Code != 0 {
			t.Fatalf("build: exit code %d\n%s", build.Code, build.Log)
		}
		push := testenv.Build{Binary: binary, Situation: testenv.Restricted(), Env: with(map[string]string{
			"KANIKO_MODE": "push", "KANIKO_DESTINATION": destination, "KANIKO_OCI_LAYOUT_PATH": layout,
			"DOCKER_AUTH_CONFIG": credentials, "KANIKO_CACHE_REPO": remoteCache + "\n" + layers,
		})}.Run(t)
		if push.Code != 0 {
			t.Fatalf("push: exit code %d\n%s", push.Code, push.Log)
		}
		if push.Results["IMAGE_DIGEST"] != build.Results["IMAGE_DIGEST"] || push.Results["IMAGE_URL"] != destination {
			t.Errorf("pushed %q, built %q", push.Results, build.Results)
		}
		for _, o := range []testenv.Outcome{warm, build, push} {
			if strings.Contains(o.Log, who.password) {
				t.Errorf("the password is in the log:\n%s", o.Log)
			}
			mustBeClean(t, o)
		}
		return build, push.Results["IMAGE_DIGEST"]
	}
	first, one := round(t)
	if strings.Contains(first.Log, "cached,") {
		t.Errorf("something was cached before anything was built:\n%s", first.Log)
	}
	second, two := round(t)
	if one != two || strings.Contains(second.Log, "not in the cache") {
		t.Errorf("the second build is %s, the first %s, and not all of it was cached:\n%s", two, one, second.Log)
	}
	// A volume that knows nothing is filled from the registry, which the push has told.
	common["KANIKO_CACHE_DIR"], layers = filepath.Join(volume, "bases2"), "oci:"+filepath.Join(volume, "layers2")
	third, three := round(t)
	if three != one || strings.Contains(third.Log, "not in the cache") {
		t.Errorf("the build on a new volume is %s, the first %s, and not all of it was cached:\n%s", three, one, third.Log)
	}
}
