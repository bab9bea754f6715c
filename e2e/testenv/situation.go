// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// defaultCapabilities are what a container runtime gives root when nothing is asked for.
const defaultCapabilities = "+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap"

// subordinate is the first of the 65536 ids that the user of WithSubordinateIDs may map.
const subordinate = 200000

// Situation is one way a pod may start the builder.
type Situation struct {
	Name string
	UID  int
	// Runs tells whether a RUN is possible there at all.
	Runs bool
	// AllIDs tells whether RUN may meet files of any owner.
	AllIDs       bool
	capabilities string // bounding set in setpriv's words
	restricted   bool   // RuntimeDefault's refusals and no new privileges
	subordinate  bool
}

// PrivilegedRoot is uid 0 with every capability, SYS_ADMIN included.
func PrivilegedRoot() Situation {
	return Situation{Name: "root-with-sys-admin", Runs: true, AllIDs: true}
}

// DefaultRoot is uid 0 as a container runtime starts it when nothing is asked for.
func DefaultRoot() Situation {
	return Situation{Name: "root-default-capabilities", Runs: true, AllIDs: true, capabilities: defaultCapabilities}
}

// WithSubordinateIDs is an ordinary user with ranges in /etc/subuid and /etc/subgid and newuidmap installed.
func WithSubordinateIDs() Situation {
	return Situation{Name: "user-with-subuids", UID: 52791, Runs: true, AllIDs: true, capabilities: defaultCapabilities, subordinate: true}
}

// SingleID is an ordinary user that has only itself.
func SingleID() Situation {
	return Situation{Name: "user-with-one-id", UID: 65532, Runs: true, capabilities: "-all"}
}

// Restricted is Pod Security "restricted": an ordinary user, no capability, no new privileges, seccomp RuntimeDefault.
func Restricted() Situation {
	return Situation{Name: "restricted", UID: 65532, capabilities: "-all", restricted: true}
}

// command wraps argv so that it starts in the situation. Files that it needs go below dir.
func (s Situation) command(t *testing.T, dir string, argv []string) ([]string, *syscall.SysProcAttr) {
	t.Helper()
	attr := &syscall.SysProcAttr{}
	if s.UID != 0 || s.capabilities != "" {
		Need(t, "setpriv")
		drop := []string{"setpriv", "--inh-caps=-all"}
		switch s.capabilities {
		case "":
		case "-all":
			drop = append(drop, "--bounding-set=-all")
		default:
			drop = append(drop, "--bounding-set=-all,"+s.capabilities)
		}
		if s.UID != 0 {
			drop = append(drop, fmt.Sprintf("--reuid=%d", s.UID), fmt.Sprintf("--regid=%d", s.UID), "--clear-groups")
		}
		argv = append(drop, argv...)
	}
	if s.restricted {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		argv = append([]string{self, restrictVerb}, argv...)
	}
	if s.subordinate {
		Need(t, "newuidmap", "newgidmap")
		argv = append([]string{"/bin/sh", "-c", accountScript(t, dir, s.UID), "sh"}, argv...)
		attr.Unshareflags = syscall.CLONE_NEWNS // the account exists for this command alone; nothing of the machine is edited
	}
	return argv, attr
}

func accountScript(t *testing.T, dir string, uid int) string {
	t.Helper()
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"passwd": strings.TrimRight(string(passwd), "\n") + fmt.Sprintf("\ne2ebuilder:x:%d:%d::/nonexistent:/bin/sh\n", uid, uid),
		"subuid": fmt.Sprintf("e2ebuilder:%d:65536\n", subordinate),
		"subgid": fmt.Sprintf("e2ebuilder:%d:65536\n", subordinate),
	}
	var script strings.Builder
	for name, text := range files {
		source, target := filepath.Join(dir, name), filepath.Join("/etc", name)
		if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(target); err != nil {
			t.Skipf("%s: %v (on Debian as root: e2e/packages.sh)", target, err)
		}
		fmt.Fprintf(&script, "mount --bind '%s' '%s' || exit 125; ", source, target)
	}
	for name, capability := range map[string]uint{"newuidmap": unix.CAP_SETUID, "newgidmap": unix.CAP_SETGID} {
		target, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&script, "mount --bind '%s' '%s' || exit 125; ", withCapability(t, dir, target, capability), target)
	}
	script.WriteString(`exec "$@"`)
	return script.String()
}

// withCapability copies a program that Debian installs setuid root and gives the copy one file capability instead: setuid
// root is not enough in a pod, where root has no CAP_SYS_ADMIN and is not the owner of the new user namespace.
func withCapability(t *testing.T, dir, program string, capability uint) string {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, filepath.Base(program))
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 20) // struct vfs_cap_data: version 2 and "effective", then permitted and inheritable, twice
	binary.LittleEndian.PutUint32(value, 0x02000001)
	binary.LittleEndian.PutUint32(value[4:], 1<<capability)
	if err := unix.Setxattr(name, "security.capability", value, 0); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return name
}

// restrictVerb is the first argument by which the test binary knows that it is to restrict itself and become another program.
const restrictVerb = "e2e-restrict-and-exec"

// Dispatch must be the first call of TestMain in packages that use Restricted or Container: it never returns in the re-executed test
// binary.
func Dispatch() {
	if len(os.Args) < 3 {
		return
	}
	argv := os.Args[2:]
	var err error
	switch os.Args[1] {
	case restrictVerb:
		err = restrict(true)
	case containVerb:
		err, argv = contain(os.Args[2]), os.Args[3:]
	default:
		return
	}
	if err == nil {
		path := argv[0]
		if !filepath.IsAbs(path) {
			path = "/usr/bin/" + path
		}
		err = syscall.Exec(path, argv, os.Environ()) //nolint:gosec // it becomes what the test asked for, with the environment it gave
	}
	fmt.Fprintln(os.Stderr, "e2e:", err)
	os.Exit(125)
}
