// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMountPointsVanish looks at what is in the root after a command that did
// nothing, and after one that wrote beside the mount points.
func TestMountPointsVanish(t *testing.T) {
	needNamespaces(t)
	const skeleton = "dev d---------\nproc d---------\nsys d---------"
	tests := []struct {
		name string
		// lower is made in the root before.
		lower func(t *testing.T, dir string)
		p     Process
		// want is what the upper directory or the plain directory has besides.
		want string
	}{
		{"nothing there", func(*testing.T, string) {}, sh("true"), skeleton},
		{
			"dangling link",
			func(t *testing.T, dir string) {
				t.Helper()
				write(t, filepath.Join(dir, "etc/keep"), "", 0o644)
				if err := os.Symlink("../run/systemd/resolve/stub.conf", filepath.Join(dir, "etc/resolv.conf")); err != nil {
					t.Fatal(err)
				}
			},
			sh("test -f /run/systemd/resolve/stub.conf && test -s /etc/hosts"), skeleton + "\netc d---------",
		},
		{
			"written beside", func(*testing.T, string) {}, sh("touch /etc/mine; mkdir -p /opt/x"),
			skeleton + "\netc d---------\netc/mine ----------\nopt d---------\nopt/x d---------",
		},
		{
			"inline file", func(*testing.T, string) {},
			func() Process {
				p := sh("test -x /a/b/c/script")
				p.Files = []InlineFile{{Path: "/a/b/c/script", Data: []byte("x"), Mode: 0o755}}
				return p
			}(),
			skeleton,
		},
		{
			"tmpfs over all of it",
			func(t *testing.T, dir string) { t.Helper(); write(t, filepath.Join(dir, "etc/keep"), "", 0o644) },
			func() Process {
				p := sh("touch /etc/x")
				p.Mounts = []Mount{{Target: "/etc", Tmpfs: &Tmpfs{}}}
				return p
			}(),
			skeleton + "\netc d---------",
		},
		{
			"below a directory of ours", func(*testing.T, string) {},
			func() Process {
				p := sh("test -x /dev/pipes/EOF")
				p.Files = []InlineFile{{Path: "/dev/pipes/EOF", Data: []byte("x"), Mode: 0o755}}
				return p
			}(),
			"proc d---------\nsys d---------",
		},
	}
	all := usable(t, asRoot(), asPod())
	for _, tt := range tests {
		for _, s := range all {
			t.Run(tt.name+"/"+s.name, func(t *testing.T) {
				fs := overlayFS(t, 0)
				tt.lower(t, fs.Lowers[0])
				if r := runOnly(t, s, fs, tt.p); r.Err != "" {
					t.Fatal(r)
				}
				if d := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(listing(t, fs.Upper), "\n"), sorted()); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func sorted() cmp.Option {
	return cmp.Transformer("sort", func(l []string) map[string]bool {
		m := map[string]bool{}
		for _, s := range l {
			m[s] = true
		}
		return m
	})
}

// TestDeletedMountPointStaysDeleted deletes a file of a lower layer on which the
// next command gets a mount.
func TestDeletedMountPointStaysDeleted(t *testing.T) {
	needNamespaces(t)
	fs := overlayFS(t, 0)
	write(t, filepath.Join(fs.Lowers[0], "etc/x"), "lower", 0o644)
	if r := runOnly(t, asRoot(), fs, sh("rm /etc/x")); r.Err != "" {
		t.Fatal(r)
	}
	p := sh("test -s /etc/x")
	p.Files = []InlineFile{{Path: "/etc/x", Data: []byte("inline"), Mode: 0o644}}
	if r := runOnly(t, asRoot(), fs, p); r.Err != "" {
		t.Fatal(r)
	}
	if r := runOnly(t, asRoot(), fs, sh("test ! -e /etc/x && touch /etc/y")); r.Err != "" {
		t.Error(r)
	}
}

// TestHostileRoot gives the builder links that lead out when followed outside the root.
func TestHostileRoot(t *testing.T) {
	needNamespaces(t)
	outside := publicDir(t)
	tests := []struct {
		name  string
		links map[string]string
		// refused is part of the error; "" when the command runs.
		refused string
	}{
		{"dev", map[string]string{"dev": outside}, "/dev of the image cannot be mounted on"},
		{"proc", map[string]string{"proc": "/"}, "/proc of the image cannot be mounted on"},
		{"sys", map[string]string{"sys": "../../../../../../" + outside}, "/sys of the image cannot be mounted on"},
		{"etc", map[string]string{"etc": outside}, ""},
		{"files", map[string]string{"etc/hosts": outside + "/hosts", "etc/resolv.conf": "../../../../../.." + outside + "/resolv"}, ""},
		{"magic", map[string]string{"etc/hosts": "/proc/1/root" + outside + "/hosts", "etc/resolv.conf": "/proc/self/fd/3"}, ""},
		{"loop", map[string]string{"etc/hosts": "hosts"}, "too many levels of symbolic links"},
		{"root", map[string]string{"etc/hosts": "/"}, "is a directory"},
	}
	all := usable(t, asRoot(), asPod())
	for _, tt := range tests {
		for _, s := range all {
			for _, fs := range []FS{overlayFS(t, 0), plainFS(t, 0)} {
				t.Run(tt.name+"/"+s.name, func(t *testing.T) {
					base := fs.Dir
					if base == "" {
						base = fs.Lowers[0]
					}
					for name, target := range tt.links {
						if err := os.MkdirAll(filepath.Dir(filepath.Join(base, name)), 0o755); err != nil {
							t.Fatal(err)
						}
						if err := os.Symlink(target, filepath.Join(base, name)); err != nil {
							t.Fatal(err)
						}
					}
					r := runOnly(t, s, fs, sh("true"))
					if (tt.refused == "") != (r.Err == "") || !strings.Contains(r.Err, tt.refused) {
						t.Error(r)
					}
					if left := listing(t, outside); left != "" {
						t.Fatalf("made outside: %s", left)
					}
				})
			}
		}
	}
}

// TestRealInRoot resolves as chroot would.
func TestRealInRoot(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"a/abs": "/b", "a/up": "../../../c", "a/loop": "loop", "dangling": "x/y"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openInRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{"/", ""},
		{"/a/../..", ""},
		{"/a/b//./c", "a/b/c"},
		{"/a/abs/x", "b/x"},
		{"/a/up/x", "c/x"},
		{"/dangling/../z", "x/z"},
	} {
		if got, err := r.real(tt.path); got != tt.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", tt.path, got, err, tt.want)
		}
	}
	if got, err := r.real("/a/loop"); err == nil {
		t.Errorf("loop: %q", got)
	}
}
