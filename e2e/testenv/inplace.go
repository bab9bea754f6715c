// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sys/unix"
)

// Mounted is something of the machine that a container sees.
type Mounted struct {
	Source, Target string
	ReadOnly       bool
}

// Container is a root file system of its own, in which the binary is the only program: what a pod gives it, but for the
// network and the processes, which are the machine's.
type Container struct {
	// Dir is the root on the machine.
	Dir string
	// Mounts are made in this order; mount points are made.
	Mounts []Mounted
	// Overlay has Dir as the lower directory of an overlay mount, as containerd does; what is written is gone with the process.
	Overlay bool
	// Unconfined leaves the seccomp filter of RuntimeDefault away, with which no namespaces can be made.
	Unconfined bool
	// NoNewPrivileges is what allowPrivilegeEscalation: false sets.
	NoNewPrivileges bool
	// Without are capabilities that are missing of the default set.
	Without []int
	// Program is what is started; the binary if it is empty.
	Program string
	// WorkDir is where; the build's own directory if it is empty.
	WorkDir string
	// UID is who starts it.
	UID int
}

// program is where the binary is in a container.
const program = "/kaniko/executor"

// containVerb is the first argument by which the test binary knows that it is to enter a container and become another program.
const containVerb = "e2e-contain-and-exec"

// NewContainer makes the root of a container with the binary in it; what every pod has mounted is mounted.
func NewContainer(t *testing.T, binary string) *Container {
	t.Helper()
	NeedRoot(t)
	c := &Container{Dir: filepath.Join(Dir(t), "root")}
	c.write(t, program, mustRead(t, binary), 0o755)
	c.write(t, "/kaniko/files", []byte("/kaniko/\n/kaniko/executor\n/kaniko/files\n/etc/ssl/certs/ca-certificates.crt\n"), 0o644)
	c.write(t, "/etc/ssl/certs/ca-certificates.crt", []byte("# none\n"), 0o644)
	c.mountPod(t)
	return c
}

// NewImageContainer makes the root of a container of an image. Its environment is the caller's to give.
func NewImageContainer(t *testing.T, image v1.Image) *Container {
	t.Helper()
	NeedRoot(t)
	Need(t, "tar")
	c := &Container{Dir: Dir(t)}
	flat := mutate.Extract(image)
	defer func() { _ = flat.Close() }()
	cmd := exec.CommandContext(t.Context(), "tar", "-xp", "--numeric-owner", "-C", c.Dir)
	cmd.Stdin = flat
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("unpacking the image: %v\n%s", err, out)
	}
	c.mountPod(t)
	return c
}

// mountPod mounts what every pod has.
func (c *Container) mountPod(t *testing.T) {
	t.Helper()
	kubelet := Dir(t)
	for name, text := range map[string]string{
		"hosts": "127.0.0.1\tlocalhost\n", "resolv.conf": "nameserver 127.0.0.1\n", "hostname": "pod\n",
	} {
		if err := os.WriteFile(filepath.Join(kubelet, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c.Mount(t, filepath.Join(kubelet, name), "/etc/"+name)
	}
	for _, dir := range []string{"/proc", "/dev", "/sys"} {
		c.Mount(t, dir, dir)
	}
}

// Mount shows a file or directory of the machine in the container.
func (c *Container) Mount(t *testing.T, source, target string) {
	t.Helper()
	m := Mounted{Source: source, Target: target}
	if err := c.makePoint(m); err != nil {
		t.Fatal(err)
	}
	c.Mounts = append(c.Mounts, m)
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Write puts a file into the root.
func (c *Container) Write(t *testing.T, name, text string) {
	t.Helper()
	c.write(t, name, []byte(text), 0o644)
}

func (c *Container) write(t *testing.T, name string, data []byte, mode os.FileMode) {
	t.Helper()
	full := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, data, mode); err != nil {
		t.Fatal(err)
	}
}

// command enters the container and becomes the binary, with the directories of the build mounted where they are.
func (c *Container) command(t *testing.T, own string, args []string) ([]string, *syscall.SysProcAttr) {
	t.Helper()
	inside := *c
	inside.Mounts = append(inside.Mounts[:len(inside.Mounts):len(inside.Mounts)], Mounted{Source: own, Target: own})
	if err := c.makePoint(inside.Mounts[len(inside.Mounts)-1]); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{self, containVerb, string(b), cmp.Or(c.Program, program)}
	return append(argv, args...), &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
}

// contain is the verb.
func contain(spec string) error {
	runtime.LockOSThread()
	var c Container
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := c.enter(); err != nil {
		return err
	}
	if err := unix.Chdir(cmp.Or(c.WorkDir, cwd)); err != nil {
		return err
	}
	// A runtime loads the filter while it still may, so that new privileges stay possible.
	if !c.Unconfined {
		if err := restrict(c.NoNewPrivileges); err != nil {
			return err
		}
	}
	if err := dropTo(c.Without); err != nil || c.UID == 0 {
		return err
	}
	// Capabilities of a thread that is no longer root's go.
	return errors.Join(unix.Setgroups(nil), unix.Setresgid(c.UID, c.UID, c.UID), unix.Setresuid(c.UID, c.UID, c.UID))
}

// enter makes the mounts and the root.
func (c *Container) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := c.mountRoot(); err != nil {
		return err
	}
	for _, m := range c.Mounts {
		if err := c.mount(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if err := unix.Chdir(c.Dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}

// mountRoot makes Dir a mount, which pivot_root wants.
func (c *Container) mountRoot() error {
	if !c.Overlay {
		return unix.Mount(c.Dir, c.Dir, "", unix.MS_BIND, "")
	}
	// The changes are in memory, below the mount that hides them.
	upper := c.Dir + "-upper"
	if err := os.Mkdir(upper, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	if err := unix.Mount("tmpfs", upper, "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, d := range []string{"/u", "/w"} {
		if err := os.Mkdir(upper+d, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", c.Dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s/u,workdir=%s/w", c.Dir, upper, upper))
}

func (c *Container) mount(m Mounted) error {
	target := filepath.Join(c.Dir, m.Target)
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil || !m.ReadOnly {
		return err
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// makePoint makes what is mounted on.
func (c *Container) makePoint(m Mounted) error {
	target := filepath.Join(c.Dir, m.Target)
	st, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// dropTo leaves the default capabilities of a container but for those given.
func dropTo(without []int) error {
	var keep uint64
	for _, c := range []int{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
		unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SYS_CHROOT, unix.CAP_MKNOD, unix.CAP_AUDIT_WRITE, unix.CAP_SETFCAP,
	} {
		keep |= 1 << c
	}
	for _, c := range without {
		keep &^= 1 << c
	}
	for c := range 41 {
		if keep&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
				return err
			}
		}
	}
	data := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
}

// restrict refuses what the RuntimeDefault profile of containerd refuses to a process without CAP_SYS_ADMIN.
func restrict(noNewPrivileges bool) error {
	const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	noSuchCall := seccomp.ActionErrno&^0xffff | seccomp.Action(unix.ENOSYS)
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: noNewPrivileges,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionErrno, Names: []string{"unshare", "setns", "mount", "umount2", "pivot_root", "fsopen", "fsmount", "open_tree", "move_mount", "mount_setattr"}},
				{Action: seccomp.ActionErrno, NamesWithCondtions: []seccomp.NameWithConditions{
					{Name: "clone", Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.BitsSet, Value: namespaces}}},
				}},
				{Action: noSuchCall, Names: []string{"clone3"}},
			},
		},
	})
}

// Files lists what is in the root of the container, but for what is mounted: path -> mode and, for files, content.
func (c *Container) Files(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.Walk(c.Dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(p, c.Dir), "/")
		if name == "/tmp" {
			return filepath.SkipDir // where the directories of builds are mounted
		}
		out[name] = info.Mode().String()
		if info.Mode().IsRegular() && info.Size() < 1<<16 {
			out[name] += " " + string(mustRead(t, p))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
