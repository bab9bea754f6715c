// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPreflight: whatever this machine permits, every row has a state, and what is refused says why.
func TestPreflight(t *testing.T) {
	refused := &RefusedError{What: "clone(CLONE_NEWUSER|CLONE_NEWNS)", Err: errors.New("operation not permitted"), How: howNamespaces}
	rows := Preflight(Status{Reason: refused}, t.TempDir())
	var names []string
	for _, r := range rows {
		names = append(names, r.What)
		if r.State == "" || r.State == "no" && r.Note == "" && r.What != "root file system for RUN in place" {
			t.Errorf("%+v says too little", r)
		}
	}
	want := []string{
		"user and mount namespace", "capabilities", "seccomp", "AppArmor, SELinux, sysctls", "overlay on KANIKO_DIR",
		"root file system for RUN in place",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	if !strings.Contains(rows[0].Note, "hostUsers: false with capabilities.add: [SYS_ADMIN]") {
		t.Errorf("no way out in %+v", rows[0])
	}
}

func TestTable(t *testing.T) {
	got := Table([]Row{{"a thing", "yes", ""}, {"another thing", "unknown", "why"}})
	want := []string{"a thing        yes", "another thing  unknown  why"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
