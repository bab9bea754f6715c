// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Row is one line of the preflight table: a thing that some isolation needs, whether it is there, and what that means.
type Row struct {
	What, State, Note string
}

// Preflight says what this container permits a RUN, with the setting that decides where something is missing. dir is where
// roots would be made.
func Preflight(s Status, dir string) []Row {
	rows := []Row{
		namespaceRow(s),
		capabilityRow(),
		seccompRow(),
		moduleRow(),
		overlayRow(s, dir),
		rootRow(),
	}
	if s.Namespaced {
		rows = append(rows, Row{"ids in the user namespace", ranges(s.UIDs), noteOf(s.Limit)}, pidRow(s))
	}
	return rows
}

// Table is the rows as lines of text.
func Table(rows []Row) []string {
	var first, second int
	for _, r := range rows {
		first, second = max(first, len(r.What)), max(second, len(r.State))
	}
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		out = append(out, strings.TrimRight(fmt.Sprintf("%-*s  %-*s  %s", first, r.What, second, r.State, r.Note), " "))
	}
	return out
}

func noteOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func namespaceRow(s Status) Row {
	if s.Namespaced {
		return Row{"user and mount namespace", "yes", ""}
	}
	r := Row{"user and mount namespace", "no", ""}
	if e, ok := errors.AsType[*RefusedError](s.Reason); ok {
		r.Note = e.Error()
	}
	return r
}

func pidRow(s Status) Row {
	if s.PIDNamespace {
		return Row{"PID namespace with its own /proc", "yes", ""}
	}
	return Row{"PID namespace with its own /proc", "no", "the runtime masks parts of /proc, as all do unless procMount is Unmasked: RUN sees the pod's processes"}
}

// capabilityRow names what is missing of the default set of container runtimes.
func capabilityRow() Row {
	has, err := effective()
	if err != nil {
		return Row{"capabilities", "unknown", err.Error()}
	}
	var lost []string
	for c, name := range dockerCapabilities() {
		if !has[c] {
			lost = append(lost, name)
		}
	}
	if len(lost) == 0 {
		return Row{"capabilities", "default set", ""}
	}
	slices.Sort(lost)
	if len(lost) == len(dockerCapabilities()) {
		return Row{"capabilities", "none", "only a Dockerfile without RUN, or one whose RUNs need one id, can be built; capabilities.drop takes them"}
	}
	return Row{"capabilities", fmt.Sprintf("%d missing", len(lost)), strings.Join(lost, ", ") + ": see capabilities.drop of the container"}
}

func seccompRow() Row {
	r := Row{"seccomp", map[string]string{"0": "none", "1": "strict", "2": "filter"}[procStatus("Seccomp")], ""}
	if r.State == "" {
		r.State = "unknown"
	}
	if r.State == "filter" {
		r.Note = "RuntimeDefault refuses namespaces and mounts to containers without CAP_SYS_ADMIN"
	}
	if procStatus("NoNewPrivs") == "1" {
		r.Note = strings.TrimPrefix(r.Note+"; no new privileges (allowPrivilegeEscalation: false): sudo and su do not work in RUN", "; ")
	}
	return r
}

// moduleRow is about AppArmor and SELinux, and the sysctls that limit namespaces.
func moduleRow() Row {
	r := Row{"AppArmor, SELinux, sysctls", "free", ""}
	var notes []string
	if c := confinement(); c != "" {
		notes = append(notes, "confined by "+c+", which may forbid mounting")
	}
	for name, bad := range map[string]string{
		"kernel/apparmor_restrict_unprivileged_userns": "1",
		"kernel/unprivileged_userns_clone":             "0",
		"user/max_user_namespaces":                     "0",
	} {
		if sysctl(name) == bad {
			notes = append(notes, "sysctl "+strings.ReplaceAll(name, "/", ".")+" is "+bad)
		}
	}
	if len(notes) > 0 {
		slices.Sort(notes)
		r.State, r.Note = "limited", strings.Join(notes, "; ")
	}
	return r
}

// overlayRow names the file system that roots would lie on.
func overlayRow(s Status, dir string) Row {
	const what = "overlay on KANIKO_DIR"
	if !s.Namespaced {
		return Row{what, "no", "needs namespaces; " + fileSystem(dir)}
	}
	if err := s.ProbeOverlay(dir); err != nil {
		return Row{what, "no", fmt.Sprintf("%v; %s; an emptyDir there is faster", err, fileSystem(dir))}
	}
	return Row{what, "yes", fileSystem(dir)}
}

// fileSystem says what kind of file system a directory is on, by the name that mountinfo has for it.
func fileSystem(dir string) string {
	mounts, err := readMounts()
	if err != nil {
		return err.Error()
	}
	kind := "unknown"
	best := -1
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	for _, m := range mounts {
		if (m.path == "/" || dir == m.path || strings.HasPrefix(dir, m.path+"/")) && len(m.path) >= best {
			kind, best = m.fstype, len(m.path)
		}
	}
	return fmt.Sprintf("%s is on %s", dir, kind)
}

// rootRow tells whether RUN could be in place.
func rootRow() Row {
	const what = "root file system for RUN in place"
	if os.Geteuid() != 0 {
		return Row{what, "no", "needs uid 0"}
	}
	if unix.Access("/", unix.W_OK) != nil {
		return Row{what, "no", "read-only"}
	}
	root, err := os.Open("/")
	if err != nil {
		return Row{what, "no", err.Error()}
	}
	defer func() { _ = root.Close() }()
	kept, err := keptBy(nil)
	if err != nil {
		return Row{what, "no", err.Error()}
	}
	found, err := look(root, kept, ownFiles())
	if err != nil {
		return Row{what, "no", err.Error()}
	}
	if n := len(found.foreign); n > 0 {
		return Row{what, "no", "it holds files that are not the builder's, /" + found.foreign[0] + " for one"}
	}
	return Row{what, "yes", ""}
}
