// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []mountPoint
		fails      bool
	}{
		{
			name: "as a pod has them",
			text: "723 619 0:87 / / rw,relatime master:241 - overlay overlay rw,lowerdir=/a:/b,upperdir=/u\n" +
				"725 723 0:90 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k\n" +
				"740 723 8:1 /var/lib/kubelet/x /etc/hosts rw,relatime - ext4 /dev/sda1 rw\n" +
				"741 723 0:91 / /run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw\n",
			want: []mountPoint{
				{723, "/", "overlay", false},
				{725, "/dev", "tmpfs", false},
				{740, "/etc/hosts", "ext4", false},
				{741, "/run/secrets/kubernetes.io/serviceaccount", "tmpfs", true},
			},
		},
		{
			name: "several optional fields, or none",
			text: "1 2 0:1 / /a rw shared:1 master:2 propagate_from:3 unbindable - ext4 x rw\n3 2 0:1 / /b rw - ext4 - rw\n",
			want: []mountPoint{{1, "/a", "ext4", false}, {3, "/b", "ext4", false}},
		},
		{
			name: "odd names",
			text: `5 2 0:1 / /odd\040[a]*\134\011x\012\043 rw - ext4 x rw` + "\n" + `6 2 0:1 / /no\08escape\ rw - ext4 x rw` + "\n",
			want: []mountPoint{{5, "/odd [a]*\\\tx\n#", "ext4", false}, {6, `/no\08escape\`, "ext4", false}},
		},
		{name: "out of our root", text: "5 2 0:1 / (unreachable)/x rw - ext4 x rw\n"},
		{name: "cut short", text: "5 2 0:1 / /x rw\n", fails: true},
		{name: "no number", text: "x 2 0:1 / /x rw - ext4 x rw\n", fails: true},
		{name: "empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseMounts(c.text)
			if (err != nil) != c.fails {
				t.Fatalf("error %v, want one: %v", err, c.fails)
			}
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(mountPoint{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestOwnMounts holds the parser to the kernel that we are on.
func TestOwnMounts(t *testing.T) {
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	var proc bool
	for _, m := range mounts {
		proc = proc || m.path == "/proc" && m.fstype == "proc"
	}
	if !proc {
		t.Errorf("/proc is not among %v", mounts)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add("723 619 0:87 / / rw,relatime master:241 - overlay overlay rw\n")
	f.Add(`5 2 0:1 / /odd\040[a]*\134\011x\012\043 rw - ext4 x rw`)
	f.Add(`5 2 0:1 / /a\ rw - - - -`)
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMounts(text)
		if err != nil {
			return
		}
		if lines := strings.Count(text, "\n") + 1; len(mounts) > lines {
			t.Errorf("%d mounts of %d lines", len(mounts), lines)
		}
		for _, m := range mounts {
			if !path.IsAbs(m.path) || m.path != path.Clean(m.path) {
				t.Errorf("path %q", m.path)
			}
		}
	})
}
