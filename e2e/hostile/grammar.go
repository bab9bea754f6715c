// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"fmt"
	"strings"
)

// Case is one image, layer by layer.
type Case struct {
	// Name says what is in it; it is unique and the same in every run.
	Name   string
	Layers [][]Entry
}

// secret is what the canaries and the planted files hold.
const planted = "planted"

// names of the entry that is tried. "x" is a planted link, "P" the canaries' protected directory.
func names() []string {
	return []string{
		"f", "d/f", "./f", "/f", "//f", "../f", "d/../../f", "d/./f", "d//f", ".", "./", "/", "", "..", "d/..", "d",
		"P/f", "P", "P/secret", ".wh.f", "d/.wh.f", ".wh.d", ".wh..wh..opq", "d/.wh..wh..opq", ".wh.", ".wh..", ".wh...", ".wh.P",
		"d/.wh.../f", ".wh..wh.plnk/1.2", ".wh..wh.aufs", "proc/self/root/f", "dev/fd/3/f", "dev/null", "etc/passwd",
		strings.Repeat("a", 255), strings.Repeat("a", 256), strings.Repeat("../", 200) + "f",
		strings.Repeat("abcdefgh/", 454) + "f", strings.Repeat("d/", 255) + "f",
		"\xff\xfe", "a\nb", "\x1b[2J", "trailing ", `C:\f`, "F",
	}
}

// throughLink are the names that lead through the planted link.
func throughLink() []string {
	return []string{"x/f", "x/../f", "x/P/secret", "x/.wh.f", "x/.wh..wh..opq", "x/", "x", "x/x/f"}
}

// targets of links. outside is the canaries' directory as an absolute path.
func targets(outside string) []string {
	return []string{
		"f", "../f", "../../f", "/f", "/", ".", "", "x/f", "P/secret", "x/secret", "x", "later", "missing", "../P", outside, outside + "/secret",
		"/proc/1/root/f", "/proc/self/fd/3", "/dev/stdin", "../../../../../../../../..", strings.Repeat("t", 4096),
	}
}

// types of entries that are no links.
func types() []byte { return []byte{'0', 0, '5', '3', '4', '6', '7', 'S', 'g', 'D', 'M', 'V', 'z'} }

// orders say in what order, and in which layers, things are planted and used.
func orders() []string { return []string{"plant-use", "use-plant", "two-layers", "swap"} }

// Cases is the whole grammar. outside is the absolute path of a directory outside every root, to which links point.
func Cases(outside string) []Case {
	var cases []Case
	add := func(name string, link string, e Entry) {
		for _, order := range orders() {
			cases = append(cases, Case{fmt.Sprintf("%s %s", order, name), arrange(order, link, e)})
		}
	}
	for i, n := range names() {
		kinds, ks := types(), targets(outside)
		if len(n) > 400 { // deep, and so dear
			kinds, ks = kinds[:3], ks[:2]
		}
		for _, t := range kinds {
			add(fmt.Sprintf("%s %q", typeName(t), brief(n)), targets(outside)[i%len(targets(outside))], entry(t, n, ""))
		}
		for _, t := range []byte{'1', '2'} {
			for _, k := range ks {
				add(fmt.Sprintf("%s %q to %q", typeName(t), brief(n), brief(k)), "../P", entry(t, n, k))
			}
		}
	}
	for _, n := range throughLink() {
		for _, k := range targets(outside) {
			for _, t := range []byte{'0', '5', '1', '2', '6'} {
				add(fmt.Sprintf("%s %q where x is a link to %q", typeName(t), n, brief(k)), k, entry(t, n, "x/secret"))
			}
		}
	}
	for _, v := range variants() {
		add(v.Name, "../P", v.Layers[0][0])
	}
	return cases
}

// entry is a member of a type with what that type can have.
func entry(t byte, name, link string) Entry {
	e := Entry{Name: name, Type: t, Link: link, Mode: 0o4751, UID: 12, GID: 34, MTime: 1_000_000}
	switch t {
	case '0', 0, '7':
		e.Data = "used"
	case 'S':
		e.Sparse, e.Size, e.Pieces = "gnu", 2000, []Piece{{700, "used"}, {1500, "again"}}
	case '3', '4':
		e.Major, e.Minor = 1, 3
	case 'g':
		e.Data = paxData([]Record{{"path", "../global"}, {"uid", "99"}})
	}
	return e
}

// variants are members whose headers are odd, whatever their names.
func variants() []Case {
	file := entry('0', "f", "")
	with := func(name string, change func(*Entry)) Case {
		e := file
		change(&e)
		return Case{name, [][]Entry{{e}}}
	}
	pax := func(name, key, value string) Case {
		return with(name, func(e *Entry) { e.PAX = []Record{{key, value}} })
	}
	return []Case{
		pax("pax path out", "path", "../f"), pax("pax path with NUL", "path", "f\x00g"), pax("pax empty path", "path", ""),
		pax("pax linkpath", "linkpath", "../secret"), pax("pax size", "size", "3"), pax("pax negative size", "size", "-1"),
		pax("pax huge size", "size", "9223372036854775807"), pax("pax huge time", "mtime", "99999999999999999999"),
		pax("pax negative time", "mtime", "-1000.5"), pax("pax uid", "uid", "4294967295"), pax("pax huge uid", "uid", "18446744073709551616"),
		pax("pax megabyte", "comment", strings.Repeat("c", 1<<20)), pax("pax no key", "", "x"),
		pax("trusted attribute", "SCHILY.xattr.trusted.overlay.opaque", "y"), pax("overlay attribute", "SCHILY.xattr.user.overlay.opaque", "y"),
		pax("overlay redirect", "SCHILY.xattr.user.overlay.redirect", "/P"), pax("garbage capability", "SCHILY.xattr.security.capability", "garbage"),
		pax("security attribute", "SCHILY.xattr.security.ima", "x"), pax("large attribute", "SCHILY.xattr.user.large", strings.Repeat("v", 70<<10)),
		pax("attribute without a name", "SCHILY.xattr.", "x"),
		with("pax twice", func(e *Entry) { e.PAX = []Record{{"path", "a"}, {"path", "../f"}} }),
		with("long name out", func(e *Entry) { e.Name, e.Long = "../../f", 'L' }),
		with("long link", func(e *Entry) { e.Type, e.Link, e.Long, e.Data = '2', "../../P", 'L', "" }),
		with("wrong checksum", func(e *Entry) { e.BadSum = true }),
		with("size beyond the end", func(e *Entry) { e.Claim = 1 << 40 }),
		with("uid of 32 bits", func(e *Entry) { e.UID, e.GID = 1<<32-2, 1<<32-2 }),
		with("uid of 40 bits", func(e *Entry) { e.UID = 1 << 40 }),
		with("negative uid", func(e *Entry) { e.UID = -1 }),
		with("all mode bits", func(e *Entry) { e.Mode = 0o7777777 }),
		with("old time", func(e *Entry) { e.MTime = -62_000_000_000 }),
		with("sparse 0.0", sparse("0.0")), with("sparse 0.1", sparse("0.1")), with("sparse 1.0", sparse("1.0")),
		with("sparse tebibyte", func(e *Entry) { sparse("1.0")(e); e.Size = 1 << 40 }),
		with("sparse and huge", func(e *Entry) { sparse("1.0")(e); e.Size = 1 << 62 }),
	}
}

func sparse(form string) func(*Entry) {
	return func(e *Entry) { e.Sparse, e.Size, e.Pieces = form, 70_000, []Piece{{0, "a"}, {66_000, "used"}} }
}

// arrange makes layers of what is planted and what is used.
func arrange(order, link string, e Entry) [][]Entry {
	dir := func(name string) Entry { return Entry{Name: name, Type: '5', Mode: 0o755, MTime: 5} }
	file := func(name string) Entry {
		return Entry{Name: name, Type: '0', Mode: 0o644, MTime: 5, Data: planted}
	}
	x := Entry{Name: "x", Type: '2', Link: link, Mode: 0o777, MTime: 5}
	plant := []Entry{dir("d/"), file("d/f"), file("f"), dir("P/"), file("P/secret"), x}
	later := file("later")
	switch order {
	case "plant-use":
		return [][]Entry{append(plant, e, later)}
	case "use-plant":
		return [][]Entry{append([]Entry{e, later}, plant...)}
	case "two-layers":
		return [][]Entry{plant, {e, later}}
	default:
		// What was a directory becomes a link and the other way round, between the planting and the use.
		return [][]Entry{
			{dir("x/"), file("x/f"), dir("d/"), file("d/f"), file("f"), dir("P/"), file("P/secret")},
			{x, {Name: "d", Type: '2', Link: "x", Mode: 0o777, MTime: 5}},
			{e, later},
		}
	}
}

func typeName(t byte) string {
	names := map[byte]string{
		'0': "file", 0: "old file", '1': "hard link", '2': "symlink", '3': "char device", '4': "block device", '5': "dir", '6': "fifo",
		'7': "contiguous", 'S': "gnu sparse", 'g': "global header", 'D': "dump dir", 'M': "multi volume", 'V': "label", 'z': "unknown",
	}
	return names[t]
}

// brief shortens names that are long by repetition.
func brief(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%s... (%d bytes)", s[:12], len(s))
	}
	return s
}
