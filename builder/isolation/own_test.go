// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMounts(t *testing.T) {
	needNamespaces(t)
	dir := publicDir(t)
	write(t, filepath.Join(dir, "src/f"), "from outside", 0o644)
	write(t, filepath.Join(dir, "cache/old"), "x", 0o644)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	tests := []struct {
		name   string
		mounts []Mount
		script string
		want   string
	}{
		{
			"directory, read-only",
			[]Mount{{Target: "/mnt/in", Source: dir + "/src", ReadOnly: true}},
			"cat /mnt/in/f; echo; touch /mnt/in/g 2>&1 | grep -c Read-only", "from outside\n1\n",
		},
		{
			"file",
			[]Mount{{Target: "/mnt/file", Source: dir + "/src/f", ReadOnly: true}},
			"cat /mnt/file", "from outside",
		},
		{
			"directory, writable",
			[]Mount{{Target: "/c", Source: dir + "/cache"}},
			"cat /c/old; rm /c/old; echo new > /c/new", "x",
		},
		{
			"memory",
			[]Mount{{Target: "/t", Tmpfs: &Tmpfs{Size: 1 << 20}}},
			"stat -c %a /t; dd if=/dev/zero of=/t/f bs=1M count=3 2>&1 | grep -c 'No space'", "1777\n1\n",
		},
		{
			"data",
			[]Mount{{Target: "/run/secrets/s", Data: &DataFile{Data: []byte("hush"), Mode: 0o440, UID: 7, GID: 8}}},
			"cat /run/secrets/s; stat -c ' %a %u:%g' /run/secrets/s; echo x 2>/dev/null > /run/secrets/s || echo refused; grep -c ' /run/secrets/s .*noexec' /proc/mounts", "hush 440 7:8\nrefused\n1\n",
		},
		{
			"one in another",
			[]Mount{
				{Target: "/run", Tmpfs: &Tmpfs{}},
				{Target: "/run/x/s", Data: &DataFile{Data: []byte("deep"), Mode: 0o755}},
			},
			"cat /run/x/s", "deep",
		},
		{"socket", []Mount{{Target: "/run/agent.sock", Source: dir + "/sock"}}, "test -S /run/agent.sock && echo yes", "yes\n"},
	}
	for _, tt := range tests {
		for _, s := range usable(t, asRoot(), asPod()) {
			t.Run(tt.name+"/"+s.name, func(t *testing.T) {
				write(t, filepath.Join(dir, "cache/old"), "x", 0o644)
				fs := overlayFS(t, 0)
				p := sh(tt.script)
				p.Mounts = tt.mounts
				r := runOnly(t, s, fs, p)
				if r.Err != "" || r.Stdout != tt.want {
					t.Fatalf("%v, want %q", r, tt.want)
				}
				// Nothing of it is in what the RUN changed, but the directories that every container has.
				want := []string{"dev d---------", "proc d---------", "sys d---------"}
				if d := cmp.Diff(want, strings.Split(listing(t, fs.Upper), "\n"), sorted()); d != "" {
					t.Error(d)
				}
			})
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "cache/new")); err != nil || string(b) != "new\n" {
		t.Errorf("what was written to a writable directory: %q, %v", b, err)
	}
}

// TestMountThroughALinkOfTheImage: a target that the image made a link is followed inside the root.
func TestMountThroughALinkOfTheImage(t *testing.T) {
	needNamespaces(t)
	for _, target := range []string{"/../../..", "/proc/1/root", "/proc/self/fd", "/etc"} {
		t.Run(target, func(t *testing.T) {
			fs := overlayFS(t, 0)
			if err := os.Symlink(target, filepath.Join(fs.Lowers[0], "link")); err != nil {
				t.Fatal(err)
			}
			p := sh("test ! -e /etc/shadow.kaniko-go-test")
			p.Mounts = []Mount{{Target: "/link/shadow.kaniko-go-test-2", Data: &DataFile{Data: []byte("x"), Mode: 0o400}}}
			// Whether it works or is refused: nothing may be made outside.
			runOnly(t, asRoot(), fs, p)
			for _, p := range []string{"/shadow.kaniko-go-test-2", "/etc/shadow.kaniko-go-test-2"} {
				if _, err := os.Lstat(p); err == nil {
					t.Errorf("%s was made outside", p)
				}
			}
		})
	}
}
