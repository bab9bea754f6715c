// SPDX-License-Identifier: Apache-2.0

package unpack_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/internal/unpack"
	"github.com/kaniko-go/kaniko-go/e2e/hostile"
)

// handCase is a case by hand: what the root then holds in short, or what the error says.
type handCase struct {
	name   string
	layers [][]hostile.Entry
	want   string
	fails  string
}

func reg(name, data string) hostile.Entry {
	return hostile.Entry{Name: name, Type: '0', Mode: 0o644, Data: data}
}

func dir(name string) hostile.Entry { return hostile.Entry{Name: name, Type: '5', Mode: 0o755} }

func sym(name, to string) hostile.Entry {
	return hostile.Entry{Name: name, Type: '2', Link: to, Mode: 0o777}
}

func hard(name, to string) hostile.Entry {
	return hostile.Entry{Name: name, Type: '1', Link: to, Mode: 0o644}
}

func node(typ byte, name string, major, minor int64) hostile.Entry {
	return hostile.Entry{Name: name, Type: typ, Mode: 0o644, Major: major, Minor: minor}
}

func one(entries ...hostile.Entry) [][]hostile.Entry { return [][]hostile.Entry{entries} }

// chain is n links, each to the next, and the last to a directory.
func chain(n int) []hostile.Entry {
	entries := []hostile.Entry{dir("end/")}
	for i := range n {
		to := fmt.Sprintf("l%d", i+1)
		if i == n-1 {
			to = "end"
		}
		entries = append(entries, sym(fmt.Sprintf("l%d", i), to))
	}
	return append(entries, reg("l0/f", "1"))
}

func namesAndLinks(outside string) []handCase {
	return []handCase{
		{name: "T01 ../x", layers: one(reg("../x", "1")), want: "x=1"},
		{name: "T01 a/../../x", layers: one(reg("a/../../x", "1")), want: "x=1"},
		{name: "T01 /../x and //x and ./../x", layers: one(reg("/../x", "1"), reg("//y", "2"), reg("./../z", "3")), want: "x=1 y=2 z=3"},
		{name: "T01 ..", layers: one(reg("..", "1")), fails: "the root is a"},
		{name: "T01 trailing /..", layers: one(reg("a/b/..", "1")), want: "a=1"},
		{name: "T01 10000 x ../", layers: one(reg(strings.Repeat("../", 10_000)+"x", "1")), want: "x=1"},
		{name: "T02 absolute", layers: one(reg("/etc/x", "1")), want: "etc/ etc/x=1"},
		{name: "T02 a canary", layers: one(reg(outside+"/f", "2")), want: implied(outside) + "f=2"},
		{name: "T03 to /", layers: one(sym("x", "/"), reg("x/f", "1")), want: "f=1 x>/"},
		{name: "T03 to ..", layers: one(sym("x", ".."), reg("x/f", "1")), want: "f=1 x>.."},
		{name: "T03 to ../../..", layers: one(sym("x", "../../.."), reg("x/f", "1")), want: "f=1 x>../../.."},
		{name: "T03 to /proc/self/root", layers: one(sym("x", "/proc/self/root"), reg("x/f", "1")), want: "proc/ proc/self/ proc/self/root/ proc/self/root/f=1 x>/proc/self/root"},
		{name: "T03 to /proc/1/root", layers: one(sym("x", "/proc/1/root"), reg("x/f", "1")), want: "proc/ proc/1/ proc/1/root/ proc/1/root/f=1 x>/proc/1/root"},
		{name: "T03 to /proc/self/fd/3", layers: one(sym("x", "/proc/self/fd/3"), reg("x", "1")), want: "x=1"},
		{name: "T03 to a canary", layers: one(sym("x", outside), reg("x/f", "1")), want: implied(outside) + "f=1 x>" + outside},
		{name: "T04 swapped between layers", layers: [][]hostile.Entry{{reg("a/b/f", "1"), dir("c/")}, {sym("a", "c")}, {reg("a/b/f", "2")}}, want: "a>c c/ c/b/ c/b/f=2"},
		{name: "T04 dir, file, dir", layers: [][]hostile.Entry{{reg("a/f", "1")}, {reg("a", "2")}, {dir("a/"), reg("a/g", "3")}}, want: "a/ a/g=3"},
		{name: "T04 link becomes dir", layers: [][]hostile.Entry{{sym("a", outside)}, {dir("a/"), reg("a/f", "1")}}, want: "a/ a/f=1"},
		{name: "T04 dir with children becomes link", layers: [][]hostile.Entry{{reg("a/b/c", "1")}, {sym("a", "..")}}, want: "a>.."},
		{name: "T05 loop", layers: one(sym("a", "b"), sym("b", "a"), reg("a/f", "1")), fails: "too many levels"},
		{name: "T05 40 links", layers: one(chain(40)...), want: "end/ end/f=1 ..."},
		{name: "T05 41 links", layers: one(chain(41)...), fails: "too many levels"},
		{name: "T05 255 links", layers: one(chain(255)...), fails: "too many levels"},
		{name: "T05 10000 links", layers: one(chain(10_000)...), fails: "too many levels"},
		{name: "T06 . as link", layers: one(sym(".", "/")), fails: "the root is a"},
		{name: "T06 ./ as file", layers: one(reg("./", "")), fails: "the root is a"},
		{name: "T06 / as hard link", layers: one(reg("f", "1"), hard("/", "f")), fails: "the root is a"},
		{name: "T06 empty name as fifo", layers: one(node('6', "", 0, 0)), fails: "the root is a"},
		{name: "T07 to ../x", layers: one(reg("x", "1"), hard("h", "../x")), want: "h=1* x=1*"},
		{name: "T07 to a canary", layers: one(hard("h", "../secret")), fails: "does not exist"},
		{name: "T07 to a canary, absolute", layers: one(hard("h", outside+"/secret")), fails: "does not exist"},
		{name: "T07 absolute in the root", layers: one(reg("d/x", "1"), hard("h", "/d/x")), want: "d/ d/x=1* h=1*"},
		{name: "T07 to a link", layers: one(sym("s", outside), hard("h", "s")), want: "h>" + outside + "* s>" + outside + "*"},
		{name: "T07 to a dir", layers: one(dir("d/"), hard("h", "d")), fails: "hard link to the directory"},
		{name: "T07 to itself", layers: one(reg("h", "1"), hard("h", "./h")), fails: "hard link to itself"},
		{name: "T07 to nothing", layers: one(hard("h", "missing")), fails: "does not exist"},
		{name: "T07 to a later entry", layers: one(hard("h", "x"), reg("x", "1")), fails: "does not exist"},
		{name: "T07 to a lower layer", layers: [][]hostile.Entry{{reg("x", "1")}, {hard("h", "x")}}, want: "h=1* x=1*"},
		{name: "T08 through a link", layers: one(sym("x", "../P"), hard("leak", "x/secret")), fails: "does not exist"},
		{name: "T08 through an absolute link", layers: one(sym("x", outside), hard("leak", "x/secret")), fails: "does not exist"},
		{name: "T09 rewritten in the layer", layers: one(reg("a", "1"), hard("b", "a"), reg("a", "2")), want: "a=2 b=1"},
		{name: "T09 rewritten in the next", layers: [][]hostile.Entry{{reg("a", "1"), hard("b", "a")}, {reg("b", "2")}}, want: "a=1 b=2"},
	}
}

func whiteouts() []handCase {
	base := []hostile.Entry{reg("a/b", "1"), reg("a/c", "2"), sym("x", "a"), sym("out", "../P"), reg("f", "3")}
	with := func(entries ...hostile.Entry) [][]hostile.Entry { return [][]hostile.Entry{base, entries} }
	const all = "a/ a/b=1 a/c=2 f=3 out>../P x>a"
	return []handCase{
		{name: "T10 .wh...", layers: with(reg(".wh...", "")), fails: "a whiteout of"},
		{name: "T10 a/.wh...", layers: with(reg("a/.wh...", "")), fails: "a whiteout of"},
		{name: "T10 .wh..", layers: with(reg(".wh..", "")), fails: "a whiteout of"},
		{name: "T10 .wh.", layers: with(reg(".wh.", "")), fails: "a whiteout of"},
		{name: "T10 .wh..wh.", layers: with(reg(".wh..wh.", "")), want: all},
		{name: "T10 .wh.a/b", layers: with(reg(".wh.a/b", "")), fails: "below a whiteout"},
		{name: "T10 .wh..wh.plnk", layers: with(dir(".wh..wh.plnk/"), reg(".wh..wh.plnk/1.2", "")), want: all},
		{name: "T10 .wh..wh.aufs", layers: with(reg(".wh..wh.aufs", "")), want: all},
		{name: "T11 below a link", layers: with(reg("x/.wh.b", "")), want: "a/ a/c=2 f=3 out>../P x>a"},
		{name: "T11 below a link out", layers: with(reg("out/.wh.secret", ""), reg("out/.wh..wh..opq", "")), want: all},
		{name: "T11 of what is missing", layers: with(reg(".wh.proc", ""), reg(".wh.dev", ""), reg("etc/.wh.hosts", "")), want: all},
		{name: "T11 of everything", layers: with(reg(".wh.a", ""), reg(".wh.f", ""), reg(".wh.x", ""), reg(".wh.out", "")), want: ""},
		{name: "T12 at the root", layers: with(reg(".wh..wh..opq", ""), reg("n", "4")), want: "n=4"},
		{name: "T12 after its siblings", layers: with(reg("a/n", "4"), reg("a/.wh..wh..opq", "")), want: "a/ a/n=4 f=3 out>../P x>a"},
		{name: "T12 twice", layers: with(reg("a/.wh..wh..opq", ""), reg("a/n", "4"), reg("a/.wh..wh..opq", "")), want: "a/ a/n=4 f=3 out>../P x>a"},
		{name: "T12 as a directory", layers: with(dir("a/.wh..wh..opq/")), want: "a/ f=3 out>../P x>a"},
		{name: "T13 whiteout, then the file", layers: with(reg(".wh.f", ""), reg("f", "4")), want: "a/ a/b=1 a/c=2 f=4 out>../P x>a"},
		{name: "T13 the file, then the whiteout", layers: with(reg("f", "4"), reg(".wh.f", "")), want: "a/ a/b=1 a/c=2 f=4 out>../P x>a"},
	}
}

func kindsAndHeaders() []handCase {
	var many []hostile.Entry
	for i := range 100_000 {
		many = append(many, reg("f", fmt.Sprint(i)))
	}
	pax := func(key, value string) [][]hostile.Entry {
		e := reg("f", "1")
		e.PAX = []hostile.Record{{Key: key, Value: value}}
		return one(e)
	}
	return []handCase{
		{name: "T14 devices and fifos", layers: one(node('3', "dev/zero", 1, 5), node('4', "dev/sda", 8, 0), node('6', "p", 0, 0), node('3', "none", 0, 0)), want: "dev/ dev/sda|4 dev/zero|3 none|3 p|6"},
		{name: "T14 dev/null as a file", layers: one(reg("dev/null", "1")), want: "dev/ dev/null=1"},
		{name: "T16 path out", layers: pax("path", "../../g"), want: "g=1"},
		{name: "T16 NUL inside", layers: pax("path", "a\x00b"), fails: "read tar"},
		{name: "T16 huge size", layers: pax("size", "9223372036854775807"), fails: "read tar"},
		{name: "T16 negative size", layers: pax("size", "-1"), fails: "read tar"},
		{name: "T16 megabyte", layers: pax("comment", strings.Repeat("c", 1<<20)), fails: "more than 1 MiB"},
		{name: "T16 overlay attribute", layers: pax("SCHILY.xattr.user.overlay.redirect", "/P"), want: "f=1"},
		{name: "T16 trusted attribute", layers: pax("SCHILY.xattr.trusted.overlay.opaque", "y"), want: "f=1"},
		{name: "T16 global header", layers: one(hostile.Entry{Name: "g", Type: 'g', Data: "16 path=../../x\n"}, reg("f", "1")), want: "f=1"},
		{name: "T16 long names one after the other", layers: one(hostile.Entry{Name: "././@LongLink", Type: 'L', Data: "../../a\x00"}, hostile.Entry{Name: "././@LongLink", Type: 'L', Data: "../../b\x00"}, reg("f", "1")), want: "b=1"},
		{name: "T16 wrong checksum", layers: one(hostile.Entry{Name: "f", Type: '0', BadSum: true}), fails: "read tar"},
		{name: "T17 bytes", layers: one(reg("\xff\xfe", "1"), reg("a\nb", "2"), reg("\x1b[2J", "3"), reg(`C:\f`, "4"), reg("f ", "5"), reg("F", "6")), want: `"\x1b[2J"=3 "C:\\f"=4 F=6 "a\nb"=2 "f "=5 "\xff\xfe"=1`},
		{name: "T17 255 bytes", layers: one(reg(strings.Repeat("a", 255), "1")), want: strings.Repeat("a", 255) + "=1"},
		{name: "T17 256 bytes", layers: one(reg(strings.Repeat("a", 256), "1")), fails: "too long"},
		{name: "T17 4096 bytes", layers: one(reg(strings.Repeat("a", 4096), "1")), fails: "too long"},
		{name: "T17 5000 deep", layers: one(reg(strings.Repeat("d/", 5000)+"f", "1")), fails: "more than 256 directories deep"},
		{name: "T18 one file 100000 times", layers: one(many...), want: "f=99999"},
		{name: "T18 dir, file, dir", layers: one(dir("a/"), reg("a", "1"), dir("a/"), reg("a/f", "2")), want: "a/ a/f=2"},
		{name: "T18 below a file", layers: one(reg("a", "1"), reg("a/f", "2")), fails: "not a directory"},
	}
}

// implied are the directories that an absolute path makes, in short.
func implied(abs string) string {
	out, done := "", ""
	for part := range strings.SplitSeq(strings.Trim(abs, "/"), "/") {
		done += part + "/"
		out += done + " "
	}
	return out + done
}

// TestHand are the hand cases of layers.
func TestHand(t *testing.T) {
	b := newBench(t)
	for _, tt := range slices.Concat(namesAndLinks(b.Outside), whiteouts(), kindsAndHeaders()) {
		t.Run(tt.name, func(t *testing.T) {
			tr, err := b.ingest(t, tt.layers)
			var got map[string]string
			if err == nil {
				got, err = b.unpack(t, tr, unpack.Plain)
			}
			switch {
			case tt.fails != "":
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("error %v, want %q", err, tt.fails)
				}
			case err != nil:
				t.Error(err)
			default:
				want, found := strings.CutSuffix(tt.want, " ...")
				have := inShort(got)
				if found {
					have = have[:min(len(want), len(have))]
				}
				if d := cmp.Diff(want, have); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			}
			if err := b.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// inShort writes a root as a/ b=content c>target d|type, with a star where there are several names.
func inShort(root map[string]string) string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(root)) {
		line := root[p]
		name := p
		if !utf8.ValidString(p) || strings.ContainsAny(p, "\n \x1b\\") {
			name = fmt.Sprintf("%q", p)
		}
		fields := strings.Fields(line)
		switch line[0] {
		case '0':
			name += "=" + strings.Trim(fields[5], `"`)
		case '2':
			name += ">" + strings.Trim(fields[5], `"`)
		case '5':
			name += "/"
		default:
			name += "|" + line[:1]
		}
		if strings.Contains(line, " names=") {
			name += "*"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

// TestModes is T15: set-id and sticky bits outlive the change of owner that comes after them in other tools, and capabilities
// are kept, whatever they hold.
func TestModes(t *testing.T) {
	b := newBench(t)
	attr := func(e hostile.Entry, name, value string) hostile.Entry {
		e.PAX = append(e.PAX, hostile.Record{Key: "SCHILY.xattr." + name, Value: value})
		return e
	}
	v2 := "\x01\x00\x00\x02\x00\x04\x00\x00" + strings.Repeat("\x00", 12)
	v3 := "\x01\x00\x00\x03\x00\x04\x00\x00" + strings.Repeat("\x00", 12) + "\x00\x00\x01\x00"
	entries := []hostile.Entry{
		{Name: "su", Type: '0', Mode: 0o6755, UID: 7, GID: 8},
		{Name: "tmp/", Type: '5', Mode: 0o1777, UID: 7},
		{Name: "group/", Type: '5', Mode: 0o2770, GID: 8},
		attr(reg("v2", ""), "security.capability", v2),
		attr(reg("v3", ""), "security.capability", v3),
		attr(reg("garbage", ""), "security.capability", "garbage"),
		attr(reg("empty", ""), "user.empty", ""),
		attr(dir("d/"), "user.on.dir", "\x00\xff"),
	}
	tr, err := b.ingest(t, one(entries...))
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.unpack(t, tr, unpack.Plain)
	if err != nil {
		t.Fatal(err)
	}
	want, err := model(one(entries...))
	if err != nil {
		t.Fatal(err)
	}
	// The kernel refuses one that it cannot read; the Tree, and so the image, keeps it.
	if ino, err := tr.Lookup("garbage"); err != nil || ino.Xattrs["security.capability"] != "garbage" {
		t.Errorf("garbage: %v, %v", ino, err)
	}
	delete(want, "garbage")
	delete(got, "garbage")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestSparseStaysSparse unpacks a file of 20 GiB with a few bytes in it.
func TestSparseStaysSparse(t *testing.T) {
	b := newBench(t)
	e := hostile.Entry{Name: "log", Type: '0', Mode: 0o600, Sparse: "1.0", Size: 20 << 30, Pieces: []hostile.Piece{{Offset: 5, Data: "a"}, {Offset: 19 << 30, Data: "end"}}}
	tr, err := b.ingest(t, one(e))
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(b.Dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := unpack.Apply(t.Context(), f, tree.Empty(), tr, unpack.Plain); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "log"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 20<<30 || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d, on disk %d", st.Size, st.Blocks*512)
	}
	got := make([]byte, 3)
	file, err := os.Open(filepath.Join(root, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.ReadAt(got, 19<<30); err != nil || string(got) != "end" {
		t.Errorf("%q, %v", got, err)
	}
}
