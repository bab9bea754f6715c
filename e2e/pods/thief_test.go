// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

var update = flag.Bool("update", false, "write testdata/thief.txt anew with what the thief obtains now; look at the difference")

// tier is a way to isolate a RUN, in a pod that gives it.
type tier struct {
	name string
	kind kind
	log  string // what the log says of the isolation
	// split is a step that builds and has nothing to lose.
	split bool
}

func tiers() []tier {
	return []tier{
		{name: "namespace", kind: unconfined(), log: "mount, uts, ipc; overlay"},
		{name: "namespace, where pivot_root is refused", kind: ownUsersAdmin(), log: "mount, uts, ipc; overlay"},
		{name: "namespace with PID", kind: ownUsersUnmasked(), log: "mount, uts, ipc, pid; overlay"},
		{name: "in place", kind: runtimeDefault(), log: "isolation: in place"},
		{name: "split, namespace", kind: unconfined(), log: "mount, uts, ipc; overlay", split: true},
		{name: "split, in place", kind: runtimeDefault(), log: "isolation: in place", split: true},
	}
}

// gives tells whether docs/security.md says that a RUN can obtain something: in place the files of the pod, which a split
// build does not have but for its own context.
func (t tier) gives(what string) bool {
	if !strings.Contains(t.log, "in place") {
		return false
	}
	documented := []string{"ignored-file-of-the-context"}
	if !t.split {
		documented = append(documented, "cache", "docker-config", "file-secret", "service-account-token", "store", "workspace")
	}
	name, _, _ := strings.Cut(what, ":")
	return slices.Contains(documented, name)
}

// TestThief has a hostile RUN look for the secrets that a pod holds, by everything that testdata/thief knows. What it obtains
// and could do, for each way to isolate a RUN, is testdata/thief.txt.
func TestThief(t *testing.T) {
	w := newWorld(t)
	context := dockerfile(t, "ARG BASE\nFROM ${BASE}\nCOPY thief /thief\nRUN mkdir -p /mnt; /thief\nUSER 1234:1234\nRUN /thief\n")
	writeFile(t, filepath.Join(context, ".dockerignore"), "private\n")
	writeFile(t, filepath.Join(context, "private"), "planted_ignored-file-of-the-context")
	if err := compileGo(t.Context(), filepath.Join(context, "thief"), "./testdata/thief"); err != nil {
		t.Fatal(err)
	}
	var report strings.Builder
	report.WriteString(thiefHeader)
	for _, tier := range tiers() {
		t.Run(tier.name, func(t *testing.T) {
			fmt.Fprintf(&report, "\n%s\n", tier.name)
			for _, line := range rob(t, w, tier, context) {
				if what, got := strings.CutPrefix(line, "GOT "); got && !tier.gives(what) {
					t.Errorf("it obtained %s", what)
				}
				fmt.Fprintf(&report, "  %s\n", line)
			}
		})
	}
	const golden = "testdata/thief.txt"
	if *update {
		writeFile(t, golden, report.String())
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), report.String()); diff != "" {
		t.Errorf("the thief obtains something else than %s says (-want +got):\n%s", golden, diff)
	}
}

const thiefHeader = `What a hostile RUN obtains of a pod's secrets (GOT), and what it could do (CAN), first as root and then as
another user; after each the ways that led there. TestThief writes this with -update.
`

// rob runs the build and returns what the thief says, one line for each thing with all the ways to it.
func rob(t *testing.T, w world, tier tier, context string) []string {
	t.Helper()
	p := w.build(tier.kind, onDisk, context, w.Host+"/thief:1", map[string]string{"KANIKO_ISOLATION": "auto"})
	p.watched, p.volumeDir = true, testenv.Dir(t)
	if tier.split {
		p.env["KANIKO_NO_PUSH"], p.env["KANIKO_OCI_LAYOUT_PATH"] = "true", "/volume/image"
		volume := testenv.Dir(t)
		p.binds, p.noToken = append(p.binds, bind{"/volume", volume, false}), true
	} else {
		plant(t, &p)
	}
	o := p.run(t, w)
	if o.code != 0 || !strings.Contains(o.log, tier.log) || strings.Count(o.log, "| TRIED ") != 2 {
		t.Fatalf("exit code %d; want 0, %q in the log, and a thief that has tried everything twice\n%s", o.code, tier.log, end(o.log))
	}
	if o.survivors != "" {
		t.Errorf("left for the container's init:\n%s", o.survivors)
	}
	ways := map[string][]string{}
	for line := range strings.Lines(o.log) {
		_, said, _ := strings.Cut(line, "| ")
		f := strings.Fields(said)
		switch {
		case len(f) == 3 && (f[0] == "GOT" || f[0] == "CAN"):
			ways[f[0]+" "+f[2]] = append(ways[f[0]+" "+f[2]], f[1])
		case len(f) > 1 && f[0] == "TRIED":
			t.Logf("%s", strings.TrimSpace(said))
		}
	}
	lines := []string{"nothing"}
	if len(ways) > 0 {
		lines = nil
	}
	for _, what := range slices.Sorted(maps.Keys(ways)) {
		slices.Sort(ways[what])
		lines = append(lines, what+": "+strings.Join(slices.Compact(ways[what]), ", "))
	}
	return lines
}

// plant gives a pod everything that people give to pods: credentials in files and variables, secrets for the build, an agent,
// volumes with other people's files.
func plant(t *testing.T, p *pod) {
	t.Helper()
	dir := testenv.Dir(t)
	for name, text := range map[string]string{
		"docker/config.json": `{"auths": {"private.example.com": {"username": "u", "password": "planted_docker-config"}}}`,
		"secret":             "planted_file-secret", "workspace/private": "planted_workspace", "cache/private": "planted_cache",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), text)
	}
	writeFile(t, filepath.Join(p.volumeDir, "private"), "planted_store")
	agent(t, filepath.Join(dir, "agent"))
	p.binds = append(p.binds,
		bind{"/kaniko/.docker", filepath.Join(dir, "docker"), true}, bind{"/kaniko/secret", filepath.Join(dir, "secret"), true}, bind{"/kaniko/agent", filepath.Join(dir, "agent"), false},
		bind{"/workspace/other", filepath.Join(dir, "workspace"), false}, bind{"/cache", filepath.Join(dir, "cache"), false})
	maps.Copy(p.env, map[string]string{
		"DOCKER_CONFIG": "/kaniko/.docker", "DOCKER_AUTH_CONFIG": `{"auths": {"other.example.com": {"username": "u", "password": "planted_docker-auth-config"}}}`,
		"KANIKO_SECRET": "id=file,src=/kaniko/secret\nid=variable,env=BUILD_SECRET", "BUILD_SECRET": "planted_variable-secret",
		"SSH_AUTH_SOCK": "/kaniko/agent", "KANIKO_SSH": "default=/kaniko/agent", "AWS_SECRET_ACCESS_KEY": "planted_aws-key", "KANIKO_CACHE_DIR": "/cache",
	})
}

// agent listens like an ssh agent, and tells everybody its secret.
func agent(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("planted_ssh-agent"))
			_ = c.Close()
		}
	}()
}
