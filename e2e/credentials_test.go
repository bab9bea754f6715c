// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestCredentialsInPlace builds and pushes with a credentials file in the container's root, twice, as a job's script
// does: the RUN, which shares that root, finds neither the file nor its bytes, and the second build finds it again.
func TestCredentialsInPlace(t *testing.T) {
	w, who := privateWorld(t)
	encoded := base64.StdEncoding.EncodeToString([]byte(who.user + ":" + who.password))
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, w.Host, encoded)
	pattern := encoded[:3] + "[" + encoded[3:4] + "]" + encoded[4:20] // which is not itself what it finds
	source := files{"Dockerfile": "FROM " + w.base + "\n" +
		"RUN ! cat /kaniko/.docker/config.json && ! grep -r -l " + pattern + " / 2>/dev/null --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev\n"}.write(t)

	c := testenv.NewContainer(t, binary)
	c.Mount(t, source, "/workspace")
	const inside = "/kaniko/.docker/config.json"
	c.Write(t, inside, config)
	path := filepath.Join(c.Dir, inside)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		o := testenv.Build{Container: c, Env: map[string]string{
			"KANIKO_CONTEXT": "/workspace", "KANIKO_DESTINATION": w.Host + "/team/app:1", "KANIKO_ISOLATION": "inplace", "DOCKER_CONFIG": "/kaniko/.docker",
		}}.Run(t)
		if o.Code != 0 {
			t.Fatalf("exit code %d\n%s", o.Code, o.Log)
		}
		if strings.Contains(o.Log, who.password) || strings.Contains(o.Log, encoded) {
			t.Errorf("the log tells the password:\n%s", o.Log)
		}
		got, err := os.ReadFile(path)
		fi, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != config || fi.Mode() != 0o600 {
			t.Errorf("after the build the credentials are %q, %v (%v, %v)", got, fi, err, statErr)
		}
	}
}
