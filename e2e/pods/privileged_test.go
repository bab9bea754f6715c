// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// dockerfile makes a build context of one Dockerfile, readable by every user.
func dockerfile(t *testing.T, text string) string {
	t.Helper()
	dir := testenv.Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build is a pod that builds a context with the busybox base as build argument BASE.
func (w world) build(k kind, v volume, context, destination string, more map[string]string) pod {
	env := map[string]string{
		"KANIKO_CONTEXT": "/workspace/source", "KANIKO_DESTINATION": destination, "KANIKO_BUILD_ARG": "BASE=" + w.base, "SOURCE_DATE_EPOCH": "1712345678",
	}
	for k, v := range more {
		env[k] = v
	}
	return pod{kind: k, volume: v, env: env, binds: []bind{{"/workspace/source", context, true}}}
}

// nodeDisk attaches a disk to the machine.
func nodeDisk(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "losetup")
	file := filepath.Join(testenv.Dir(t), "disk")
	if err := os.WriteFile(file, bytes.Repeat([]byte("the node's disk\n"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Skipf("no disk can be attached to this machine: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detaching %s: %v\n%s", device, err, out)
		}
	})
	return device
}

// TestPrivileged shows that a RUN in a privileged pod is no more privileged than elsewhere: the node's disk, which the pod
// itself may read, stays closed, and so do the settings of its kernel.
func TestPrivileged(t *testing.T) {
	w := newWorld(t)
	disk := nodeDisk(t)
	before, err := os.ReadFile("/proc/sys/vm/swappiness")
	if err != nil {
		t.Fatal(err)
	}
	// The pod itself can: otherwise the rest would show nothing.
	probe := pod{kind: privileged(), volume: onDisk, script: "cat /proc/sys/vm/swappiness >/proc/sys/vm/swappiness && head -c 512 " + disk + " | wc -c"}
	if o := probe.run(t, w); o.code != 0 || o.log != "512\n" {
		t.Fatalf("the privileged pod cannot do what its RUN must not be able to do: exit code %d\n%s", o.code, o.log)
	}
	attempts := []string{
		"echo 61 >/proc/sys/vm/swappiness", "echo h >/proc/sysrq-trigger", "cat /proc/sys/kernel/core_pattern >/proc/sys/kernel/core_pattern", "echo 1 >/sys/kernel/mm/ksm/run",
		"head -c 1 " + disk, "mknod /disk b $(stat -c '0x%t 0x%T' " + disk + ")", "head -c 1 /dev/kmsg", "head -c 1 /proc/kcore", "mount -t tmpfs x /mnt", "mount -o remount,rw /sys",
		"unshare -m true", "nsenter -t 1 -m true", "chroot /proc/1/root true", "ls /proc/1/root/", "cat /sys/kernel/debug/x", "insmod /bin/busybox",
		"ip link set lo mtu 65530", "hostname x",
	}
	text := "ARG BASE\nFROM ${BASE}\nRUN mkdir /mnt; "
	for _, a := range attempts {
		text += "(" + a + ") >/dev/null 2>&1 && echo 'DID " + strings.ReplaceAll(a, "'", `'\''`) + "'; "
	}
	context := dockerfile(t, text+"echo tried everything\n")
	for _, k := range []kind{privileged(), ownUsersAdmin(), unconfined()} {
		for _, v := range []volume{noVolume, onDisk} {
			t.Run(k.name+"/"+string(v), func(t *testing.T) {
				o := w.build(k, v, context, w.Host+"/privileged:1", nil).run(t, w)
				if o.code != 0 || !strings.Contains(o.log, "| tried everything") {
					t.Fatalf("exit code %d\n%s", o.code, o.log)
				}
				for line := range strings.Lines(o.log) {
					if _, did, ok := strings.Cut(line, "| DID "); ok {
						t.Errorf("a RUN could: %s", did)
					}
				}
			})
		}
	}
	after, err := os.ReadFile("/proc/sys/vm/swappiness")
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Errorf("vm.swappiness was %s and is %s", before, after)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
