// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// login is one way to show, or not to show, who one is. HOME in values is the home directory.
type login struct {
	name, location string
	env            map[string]string
	files          map[string]string // below the home directory
	// code is the exit code, and says what the last line says.
	code int
	says string
}

// try builds. What succeeds has the digest, and nothing of what is secret is in a log.
func (l login) try(t *testing.T, want string, secrets []string, env ...map[string]string) {
	t.Helper()
	home := testenv.Dir(t)
	for name, text := range l.files {
		mustWrite(t, filepath.Join(home, name), strings.ReplaceAll(text, "HOME", home))
	}
	all := map[string]string{"HOME": home}
	for _, e := range append(env, l.env) {
		maps.Copy(all, e)
	}
	for k, v := range all {
		all[k] = strings.ReplaceAll(v, "HOME", home)
	}
	o := build(t, l.location, all, "")
	switch {
	case o.Code != l.code || !strings.Contains(o.Cause, l.says):
		t.Errorf("exit %d, want %d with %q: %s", o.Code, l.code, l.says, o.Log)
	case l.code == 0 && o.Results["IMAGE_DIGEST"] != want:
		t.Errorf("another image: %s", o.Log)
	case l.code != 0 && len(o.Results) > 0:
		t.Errorf("results of a build that failed: %v", o.Results)
	}
	if len(o.Left) > 0 {
		t.Errorf("left: %v", o.Left)
	}
	for _, s := range secrets {
		if s != "" && strings.Contains(o.Log, s) {
			t.Errorf("the log has a secret: %s", o.Log)
		}
	}
}
