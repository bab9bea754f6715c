// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files other owners")
	}
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// sample is a Tree with one of everything.
func sample(t *testing.T) *tree.Tree {
	t.Helper()
	e := tree.Empty().Edit()
	put := func(p string, ino *tree.Inode) {
		if err := e.Put(p, ino); err != nil {
			t.Fatal(err)
		}
	}
	m := func(mode uint16, uid, gid uint32) tree.Meta {
		return tree.Meta{Mode: mode, UID: uid, GID: gid, MTime: 1_000_000}
	}
	file := func(s string, m tree.Meta) *tree.Inode { return tree.NewFile(m, int64(len(s)), tree.Bytes(s)) }
	put("bin", tree.NewDir(m(0o755, 0, 0)))
	put("bin/su", file("su", m(0o4755, 0, 0)))
	shared := file("shared", m(0o644, 1, 2))
	shared.Shared = true
	put("bin/one", shared)
	put("closed", tree.NewDir(m(0o500, 7, 8)))
	put("closed/deep", tree.NewDir(m(0o2770, 7, 8)))
	put("closed/deep/two", shared)
	put("closed/f", file("f", m(0, 7, 8)))
	put("dev", tree.NewDir(m(0o755, 0, 0)))
	put("dev/null", tree.NewDevice(tree.CharDevice, m(0o666, 0, 0), 1, 3))
	put("empty", file("", m(0o600, 0, 0)))
	put("link", tree.NewSymlink(m(0o777, 3, 4), "/etc/../nowhere"))
	put("pipe", tree.NewFifo(m(0o640, 0, 5)))
	put("odd\n name\xff", file("x", m(0o644, 0, 0)))
	return e.Commit()
}

// onDisk lists a directory by looking at the disk.
func onDisk(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil || p == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		at := fmt.Sprint(st.Mtim.Sec)
		if time.Since(time.Unix(st.Mtim.Sec, 0)) < time.Hour {
			at = "now"
		}
		line := fmt.Sprintf("%q %o %d:%d %s %d", strings.TrimPrefix(p, dir+"/"), st.Mode, st.Uid, st.Gid, at, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(b)
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " " + target
		case unix.S_IFCHR:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

func TestUnpack(t *testing.T) {
	needRoot(t)
	const want = `"bin" 40755 0:0 1000000 2
"bin/one" 100644 1:2 1000000 2 shared
"bin/su" 104755 0:0 1000000 1 su
"closed" 40500 7:8 1000000 3
"closed/deep" 42770 7:8 1000000 2
"closed/deep/two" 100644 1:2 1000000 2 shared
"closed/f" 100000 7:8 1000000 1 f
"dev" 40755 0:0 1000000 2
"dev/null" 20666 0:0 1000000 1 1:3
"empty" 100600 0:0 1000000 1 
"link" 120777 3:4 1000000 1 /etc/../nowhere
"odd\n name\xff" 100644 0:0 1000000 1 x
"pipe" 10640 0:5 1000000 1`
	for name, kind := range map[string]unpack.Kind{"plain": unpack.Plain, "lower": unpack.Lower} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			skipped, err := unpack.Apply(t.Context(), open(t, dir), tree.Empty(), sample(t), kind)
			if err != nil || len(skipped) != 0 {
				t.Fatalf("skipped %q, %v", skipped, err)
			}
			if d := cmp.Diff(want, onDisk(t, dir)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestUnpackOverWhatIsThere(t *testing.T) {
	needRoot(t)
	prev := sample(t)
	e := prev.Edit()
	m := tree.Meta{Mode: 0o644, MTime: 2_000_000}
	for p, ino := range map[string]*tree.Inode{
		"bin":   tree.NewFile(m, 3, tree.Bytes("now")), // over a directory
		"empty": tree.NewDir(tree.Meta{Mode: 0o755, MTime: 2_000_000}),
		"link":  tree.NewSymlink(m, "elsewhere"),
		"pipe":  nil,
	} {
		var err error
		if ino == nil {
			err = e.Remove(p)
		} else {
			err = e.Put(p, ino)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Put("empty/in", tree.NewFile(m, 0, nil)); err != nil {
		t.Fatal(err)
	}
	next := e.Commit()

	direct, steps := t.TempDir(), t.TempDir()
	if _, err := unpack.Apply(t.Context(), open(t, direct), tree.Empty(), next, unpack.Plain); err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct{ from, to *tree.Tree }{{tree.Empty(), prev}, {prev, next}} {
		if _, err := unpack.Apply(t.Context(), open(t, steps), s.from, s.to, unpack.Plain); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(onDisk(t, direct), onDisk(t, steps)); d != "" {
		t.Errorf("(-direct +in two steps):\n%s", d)
	}
}

func TestLowerMarksWhatIsGone(t *testing.T) {
	needRoot(t)
	prev := sample(t)
	e := prev.Edit()
	if err := e.Remove("closed/deep"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := unpack.Apply(t.Context(), open(t, dir), prev, e.Commit(), unpack.Lower); err != nil {
		t.Fatal(err)
	}
	want := `"closed" 40500 7:8 1000000 2
"closed/deep" 20000 0:0 now 1 0:0`
	if d := cmp.Diff(want, onDisk(t, dir)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestWalk changes a directory in every way and expects just that as changes.
func TestWalk(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name string
		do   func(dir string) error
		want string
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"read a file", func(d string) error { _, err := os.ReadFile(d + "/bin/su"); return err }, ""},
		{"new file", func(d string) error { return os.WriteFile(d+"/bin/new", []byte("n"), 0o600) }, "+bin +bin/new"},
		{"same size, time set back", func(d string) error {
			if err := os.WriteFile(d+"/bin/su", []byte("us"), 0o600); err != nil {
				return err
			}
			at := time.Unix(1_000_000, 0)
			return os.Chtimes(d+"/bin/su", at, at)
		}, "+bin +bin/su"},
		{"rewritten with the same bytes and time", func(d string) error {
			if err := os.Chtimes(d+"/bin/su", time.Unix(5, 0), time.Unix(5, 0)); err != nil {
				return err
			}
			at := time.Unix(1_000_000, 0)
			return os.Chtimes(d+"/bin/su", at, at)
		}, ""},
		{"mode", func(d string) error { return os.Chmod(d+"/empty", 0o644) }, "+empty"},
		{"owner", func(d string) error { return os.Lchown(d+"/link", 9, 9) }, "+link"},
		{"made and removed", func(d string) error {
			if err := os.WriteFile(d+"/closed/x", nil, 0o600); err != nil {
				return err
			}
			return os.Remove(d + "/closed/x")
		}, ""},
		{"removed", func(d string) error { return os.RemoveAll(d + "/closed/deep") }, "+closed -closed/deep"},
		{"directory replaced", func(d string) error {
			if err := os.RemoveAll(d + "/bin"); err != nil {
				return err
			}
			return os.Mkdir(d+"/bin", 0o755)
		}, "+bin -bin/one -bin/su"},
		{"directory becomes file", func(d string) error {
			if err := os.RemoveAll(d + "/bin"); err != nil {
				return err
			}
			return os.WriteFile(d+"/bin", nil, 0o600)
		}, "+bin"},
		{"file becomes directory", func(d string) error {
			if err := os.Remove(d + "/empty"); err != nil {
				return err
			}
			return os.MkdirAll(d+"/empty/in", 0o755)
		}, "+empty +empty/in"},
		{"new hard link", func(d string) error { return os.Link(d+"/bin/su", d+"/su") }, "+su"},
		{"socket", func(d string) error { return unix.Mknod(d+"/sock", unix.S_IFSOCK|0o600, 0) }, ""},
		{"new tree", func(d string) error { return os.MkdirAll(d+"/a/b/c", 0o755) }, "+a +a/b +a/b/c"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			root := open(t, dir)
			prev := sample(t)
			if _, err := unpack.Apply(t.Context(), root, tree.Empty(), prev, unpack.Plain); err != nil {
				t.Fatal(err)
			}
			rec, err := NewRecord(t.Context(), root)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.do(dir); err != nil {
				t.Fatal(err)
			}
			raw, rec, err := Walk(t.Context(), root, rec, prev, Options{})
			if err != nil {
				t.Fatal(err)
			}
			next, changes, err := tree.Canon(prev, raw, tree.Times{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := list(changes); got != tt.want {
				t.Errorf("changes %q, want %q", got, tt.want)
			}
			again, _, err := Walk(t.Context(), root, rec, next, Options{})
			if err != nil || again.Root() != next.Root() {
				t.Errorf("a second walk without a change finds one, %v", err)
			}
		})
	}
}

func list(changes []tree.Change) string {
	var out []string
	for _, c := range changes {
		sign := "+"
		if c.Inode == nil {
			sign = "-"
		}
		out = append(out, sign+c.Path)
	}
	return strings.Join(out, " ")
}

// TestRandomTreesRoundTrip makes random changes on disk and unpacks what the snapshot says elsewhere: the two must agree.
func TestRandomTreesRoundTrip(t *testing.T) {
	needRoot(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	root := open(t, dir)
	prev := tree.Empty()
	rec, err := NewRecord(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 12 {
		for range 25 {
			scramble(t, r, dir)
		}
		raw, next, err := Walk(t.Context(), root, rec, prev, Options{})
		if err != nil {
			t.Fatal(err)
		}
		rec = next
		canon, _, err := tree.Canon(prev, raw, tree.Times{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		copied := t.TempDir()
		if _, err := unpack.Apply(t.Context(), open(t, copied), tree.Empty(), raw, unpack.Lower); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(onDisk(t, dir), onDisk(t, copied)); d != "" {
			t.Fatalf("seed %d, round %d (-disk +unpacked):\n%s", seed, round, d)
		}
		prev = canon
	}
}

// scramble does one random thing below dir.
func scramble(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	names := []string{"a", "b", "c", "a.b", "d"}
	p := dir
	for range 1 + r.IntN(3) {
		p = filepath.Join(p, names[r.IntN(len(names))])
	}
	if st, err := os.Lstat(filepath.Dir(p)); err != nil || !st.IsDir() {
		return
	}
	// What cannot be done, because of what is there, is as good as nothing.
	switch r.IntN(8) {
	case 0, 1:
		_ = os.Mkdir(p, os.FileMode(r.IntN(0o1000)))
	case 2, 3:
		_ = os.WriteFile(p, []byte(strings.Repeat("x", r.IntN(9))), 0o644)
	case 4:
		_ = os.RemoveAll(p)
	case 5:
		_ = os.Symlink(names[r.IntN(len(names))], p)
	case 6:
		_ = os.Lchown(p, r.IntN(9), r.IntN(9))
	case 7:
		_ = os.Rename(p, filepath.Join(dir, names[r.IntN(len(names))]))
	}
}
