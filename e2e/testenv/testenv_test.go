// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	Dispatch()
	os.Exit(m.Run())
}

// TestUnpackImage shows that the registry, the base and the foreign client work together without anything of ours.
func TestUnpackImage(t *testing.T) {
	NeedRoot(t)
	Need(t, "busybox", "skopeo", "umoci", "runc")
	ctx := context.Background()
	registry := NewRegistry(t, RegistryOptions{})
	base, err := Busybox(ctx)
	if err != nil {
		t.Fatal(err)
	}
	reference := registry.Host + "/base/busybox:1"
	if err := Push(ctx, base, reference); err != nil {
		t.Fatal(err)
	}
	if got := UnpackImage(t, reference).Run(t, "/bin/sh", "-c", "id -u; cat /etc/group"); got != "0\nroot:x:0:\nnobody:x:65534:\n" {
		t.Errorf("the image printed %q", got)
	}
}

func TestRegistryAsksForPassword(t *testing.T) {
	registry := NewRegistry(t, RegistryOptions{TLS: true, User: "u", Password: "p"})
	if _, err := http.Get("https://" + registry.Host + "/v2/"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client that does not know the authority: %v", err)
	}
	if _, err := os.Stat(registry.CA); err != nil {
		t.Error(err)
	}
}

// TestSituations holds each situation to what its name says, by asking a shell that was started in it.
func TestSituations(t *testing.T) {
	NeedRoot(t)
	Need(t, "busybox", "setpriv", "unshare")
	script := filepath.Join(Dir(t), "probe")
	probe := "#!/bin/sh\nid -u >&2\ngrep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t' >&2\nunshare -U true 2>/dev/null && echo userns >&2\ngrep -c e2ebuilder /etc/subuid >&2\n" +
		"echo ok >$KANIKO_RESULTS_DIR/r; touch $TMPDIR/left; sleep 300 >/dev/null 2>&1 </dev/null &\nexit 7\n"
	if err := os.WriteFile(script, []byte(probe), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		situation Situation
		want      string
	}{
		{DefaultRoot(), "0\nCapEff:00000000a80425fb\nCapBnd:00000000a80425fb\nNoNewPrivs:0\nuserns\n0\n"},
		{WithSubordinateIDs(), "52791\nCapEff:0000000000000000\nCapBnd:00000000a80425fb\nNoNewPrivs:0\nuserns\n1\n"},
		{SingleID(), "65532\nCapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:0\nuserns\n0\n"},
		{Restricted(), "65532\nCapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:1\n0\n"},
	} {
		t.Run(tc.situation.Name, func(t *testing.T) {
			got := Build{Binary: script, Situation: tc.situation}.Run(t)
			if diff := cmp.Diff(tc.want, got.Log); diff != "" {
				t.Errorf("what the situation is (-want +got):\n%s", diff)
			}
			if got.Code != 7 || got.Results["r"] != "ok\n" || got.Cause != lastLine(tc.want) {
				t.Errorf("code %d, results %v, cause %q", got.Code, got.Results, got.Cause)
			}
			if len(got.Left) != 2 {
				t.Errorf("left %q, want the sleeping process and the file", got.Left)
			}
		})
	}
}
