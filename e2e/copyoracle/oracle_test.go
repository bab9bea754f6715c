// SPDX-License-Identifier: Apache-2.0

package copyoracle

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	continuity "github.com/containerd/continuity/fs"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"
)

var (
	seed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random cases")
	count = flag.Int("cases", 2000, "how many random cases")
)

// TestMain clears the umask, as buildkitd does.
func TestMain(m *testing.M) {
	flag.Parse()
	syscall.Umask(0)
	fscopy.UmaskIsZero = true
	os.Exit(m.Run())
}

// theirs copies on disk with BuildKit's code, as its Dockerfile frontend and its solver use it.
func theirs(c random, dir string, begun time.Time) (map[string]string, error) {
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	if err := errors.Join(makeTree(source, c.Source), makeTree(target, c.Target)); err != nil {
		return nil, fmt.Errorf("making the trees: %w", err)
	}
	for _, p := range c.Paths {
		if err := copyOne(c, source, target, p); err != nil {
			return nil, err
		}
	}
	return describeDisk(target, begun)
}

func copyOne(c random, source, target, p string) error {
	var info fscopy.CopyInfo
	info.CopyDirContents, info.FollowLinks, info.ExcludePatterns = true, true, c.Exclude
	info.Chown = func(old *fscopy.User) (*fscopy.User, error) { return old, nil }
	if c.Chown != "" {
		u, g, _ := strings.Cut(c.Chown, ":")
		uid, _ := strconv.Atoi(u)
		gid, _ := strconv.Atoi(g)
		info.Chown = func(*fscopy.User) (*fscopy.User, error) { return &fscopy.User{UID: uid, GID: gid}, nil }
	}
	if n, err := strconv.ParseUint(c.Chmod, 8, 32); err == nil {
		mode := int(n)
		info.Mode = &mode
	} else {
		info.ModeStr = c.Chmod
	}
	src := p
	if c.Parents {
		root, pattern, ok := strings.Cut(p, "/./")
		if !ok {
			root, pattern = "/", p
		}
		src = root
		info.IncludePatterns = []string{strings.TrimPrefix(filepath.Join("/", pattern), "/")}
		if !strings.ContainsAny(p, "*?[") {
			if err := required(source, root, pattern); err != nil {
				return err
			}
		}
	}
	matches, err := fscopy.ResolveWildcards(source, filepath.Join("/", src), true)
	if err != nil {
		return err
	}
	if trail(target, c.Dest) {
		return errUndefined
	}
	for _, m := range matches {
		if followed, err := continuity.RootPath(source, m); err == nil && c.Parents && src != p {
			if st, err := os.Lstat(followed); err == nil && !st.IsDir() {
				return errUndefined
			}
		}
		if err := fscopy.Copy(context.Background(), source, m, target, c.Dest, fscopy.WithCopyInfo(info)); err != nil {
			return err
		}
	}
	return nil
}

// trail reports whether BuildKit makes a directory that has nothing to do with what it copies: it reads a destination that ends in
// "/." twice, and the "." once as a name beside the link that is before it. The corpus has that as copy-dest-dot-behind-links.
func trail(target, dest string) bool {
	one, err := continuity.RootPath(target, dest)
	if err != nil {
		return false
	}
	other, err := continuity.RootPath(target, filepath.Clean(dest))
	return err == nil && one != other
}

// errUndefined is for what BuildKit does one way with the build context and another way with a stage (a file before "/./"), and
// for what makes no sense (see trail).
var errUndefined = errors.New("undefined")

// required is what BuildKit's cache does for paths of --parents without wildcards: they must exist, and not through a link.
func required(source, root, pattern string) error {
	p, err := continuity.RootPath(source, filepath.Join("/", root))
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.Trim(filepath.Clean("/"+pattern), "/"), "/") {
		p = filepath.Join(p, name)
		if _, err := os.Lstat(p); err != nil {
			return err
		}
		if st, err := os.Lstat(filepath.Dir(p)); err != nil || !st.IsDir() {
			return fs.ErrNotExist
		}
	}
	return nil
}

// makeTree makes a tree on disk, times last.
func makeTree(root string, nodes []node) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, n := range nodes {
		p := filepath.Join(root, n.Path)
		var err error
		switch n.Type {
		case "dir":
			err = os.Mkdir(p, 0o755)
		case "file":
			err = os.WriteFile(p, []byte(n.Text), 0o644)
		case "link":
			err = os.Symlink(n.Text, p)
		case "fifo":
			err = unix.Mkfifo(p, 0o644)
		case "hard":
			err = os.Link(filepath.Join(root, n.Text), p)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range slices.Backward(nodes) {
		if n.Type == "hard" {
			continue
		}
		p := filepath.Join(root, n.Path)
		if err := os.Lchown(p, n.UID, n.GID); err != nil {
			return err
		}
		if n.Type != "link" {
			if err := unix.Chmod(p, uint32(n.Mode)); err != nil {
				return err
			}
		}
		ts := unix.NsecToTimespec(n.Time * 1e9)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return nil
}

func describeDisk(root string, begun time.Time) (map[string]string, error) {
	all := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		kind, text := "fifo", ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			kind = "dir"
		case unix.S_IFLNK:
			kind = "link"
			if text, err = os.Readlink(p); err != nil {
				return err
			}
		case unix.S_IFREG:
			kind = "file"
			if other, ok := first[st.Ino]; ok {
				all[rel] = "hard " + other
				return nil
			}
			first[st.Ino] = rel
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text = string(b)
		}
		all[rel] = line(kind, st.Mode&0o7777, st.Uid, st.Gid, time.Unix(st.Mtim.Sec, 0), begun, text)
		return nil
	})
	return all, err
}

// differ says how the two results of a case differ, "" if they do not.
func differ(t *testing.T, c random) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "copyoracle-") //nolint:usetesting // thousands of them, removed one by one
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	begun := time.Now().Add(-2 * time.Second) // the kernel stamps files with a clock that lags
	want, theirErr := theirs(c, dir, begun)
	got, ourErr := ours(c, begun)
	switch {
	case theirErr != nil && strings.HasPrefix(theirErr.Error(), "making the trees"):
		t.Fatal(theirErr)
	case errors.Is(theirErr, errUndefined):
		return ""
	case ourErr == nil && theirErr != nil && strings.Contains(theirErr.Error(), "failed to stat") && (errors.Is(theirErr, syscall.ENOTDIR) || errors.Is(theirErr, syscall.ELOOP)):
		return "" // BuildKit looks at the target of what it does not copy, too, and fails when a file or a circle of links is in the way
	case (theirErr == nil) != (ourErr == nil):
		return fmt.Sprintf("error: BuildKit %v, ours %v\n", theirErr, ourErr)
	case theirErr != nil:
		return ""
	}
	var b strings.Builder
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if got[p] != want[p] {
			fmt.Fprintf(&b, "%s: BuildKit %s; ours %s\n", p, want[p], got[p])
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			fmt.Fprintf(&b, "%s: only ours: %s\n", p, got[p])
		}
	}
	return b.String()
}

// TestKept runs the cases that once differed.
func TestKept(t *testing.T) {
	needRoot(t)
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		t.Run(filepath.Base(p), func(t *testing.T) {
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			var c random
			if err := json.Unmarshal(data, &c); err != nil {
				t.Fatal(err)
			}
			if text := differ(t, c); text != "" {
				t.Errorf("%s\n%s", c.instruction(), text)
			}
		})
	}
}

// TestRandom makes cases, and makes the ones that differ as small as they still differ.
func TestRandom(t *testing.T) {
	needRoot(t)
	t.Logf("seed %d, %d cases: go test -run TestRandom -seed %d -cases %d", *seed, *count, *seed, *count)
	r := rand.New(rand.NewPCG(*seed, 1))
	failures := 0
	for range *count {
		c := generate(r)
		text := differ(t, c)
		if text == "" {
			continue
		}
	shrinking:
		for {
			for _, smaller := range c.smaller() {
				if less := differ(t, smaller); less != "" {
					c, text = smaller, less
					continue shrinking
				}
			}
			break
		}
		data, err := json.MarshalIndent(c, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s\n%skeep it as testdata/NAME.json:\n%s", c.instruction(), text, data)
		if failures++; failures == 10 {
			t.Fatal("ten are enough")
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the trees have several owners")
	}
}
