// SPDX-License-Identifier: Apache-2.0

package hostile

// Spell makes an entry of each pair of bytes: of the first, four bits say the type and four bits the directory, the second has
// the name and, for links, a third byte the target. All headers are alike, so that further names change no file.
func Spell(b []byte, outside string) []Entry {
	dirs := []string{"", "a/", "b/", "a/b/", "x/", "x/a/", "../", "/", "a/../", "x/../", "./", "b/a/", "P/", "a/./", "a//", "x/x/"}
	names := []string{"a", "b", "x", "f", ".wh.a", ".wh.b", ".wh.x", ".wh..wh..opq", ".wh.f", "..", ".", "", "P", ".wh..", ".wh..wh.plnk", "secret"}
	targets := []string{"a", "b", "x", "f", "../a", "/b", "a/b", "..", "/", "x/f", "../P", "P/secret", "../secret", outside, "b/../a", "missing/../f"}
	var entries []Entry
	next := func() byte {
		if len(b) == 0 {
			return 0
		}
		c := b[0]
		b = b[1:]
		return c
	}
	for len(b) > 0 {
		c, n := next(), next()
		e := Entry{Name: dirs[c&15] + names[n&15], Mode: 0o755, UID: 1, GID: 2, MTime: 3, Type: "0055221160347S0z"[c>>4]}
		switch e.Type {
		case '1', '2':
			e.Link = targets[next()&15]
		case '0', '7':
			e.Data = "data of " + e.Name
		case '3', '4':
			e.Major = 1
		case 'S':
			e.Sparse, e.Size, e.Pieces = "gnu", 9000, []Piece{{Offset: 5000, Data: "piece"}}
		}
		entries = append(entries, e)
	}
	return entries
}
