// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// Legal makes n images that are ugly and allowed: hard links across layers, opaque directories, long names and such that are
// no text, sparse files, set-id bits, attributes, devices, duplicates, and whiteouts wherever they may be. The same seed
// gives the same images.
func Legal(seed uint64, n int) []Case {
	cases := make([]Case, n)
	for i := range cases {
		l := &legal{r: rand.New(rand.NewPCG(seed, uint64(i))), model: NewModel()} //nolint:gosec // to be repeated, not to be secret
		cases[i].Name = fmt.Sprintf("legal-%d-%d", seed, i)
		for range 1 + l.r.IntN(5) {
			cases[i].Layers = append(cases[i].Layers, l.layer())
		}
	}
	return cases
}

// legal makes the layers of one image. The model says what there is to be linked to, replaced or removed.
type legal struct {
	r     *rand.Rand
	model *Model
	// below is what the lower layers hold.
	below   map[string]string
	entries []Entry
}

func (l *legal) layer() []Entry {
	l.below, l.entries = l.list(), nil
	l.model.layer++
	for range 3 + l.r.IntN(25) {
		switch k := l.r.IntN(20); {
		case k < 3:
			l.add(Entry{Name: l.fresh() + "/", Type: '5'})
		case k < 8:
			l.add(l.file(l.fresh()))
		case k < 10:
			l.add(Entry{Name: l.fresh(), Type: '2', Link: l.pick([]string{"a", "../b", "/c/d", ".", "/", strings.Repeat("long/", 100), "\xfe\xff", "x\ny"})})
		case k < 12:
			l.hardLink()
		case k < 13:
			l.add(Entry{Name: l.fresh(), Type: l.pick([]string{"3", "4", "6"})[0], Major: int64(l.r.IntN(300)), Minor: int64(l.r.IntN(70_000))})
		case k < 14: // again, as the same type
			if p := l.existing('0'); p != "" {
				l.add(l.file(p))
			}
		case k < 15:
			if p := l.existing('5'); p != "" {
				l.add(Entry{Name: p + "/", Type: '5'})
			}
		case k < 18:
			l.whiteout()
		case k < 19:
			if p := l.existing('5'); p != "" {
				l.add(Entry{Name: path.Join(p, ".wh..wh..opq"), Type: '0'})
			}
		default:
			l.add(Entry{Name: "./", Type: '5'})
		}
	}
	return l.entries
}

func (l *legal) pick(from []string) string { return from[l.r.IntN(len(from))] }

// add gives the entry an owner and a mode and applies it to the model; what the model refuses is left out.
func (l *legal) add(e Entry) {
	e.Mode = []int64{0o644, 0o755, 0o4755, 0o2750, 0o1777, 0o600, 0, 0o6711}[l.r.IntN(8)]
	if strings.HasPrefix(path.Base(e.Name), ".wh.") {
		e.Mode = 0
	}
	if e.Type != '1' {
		e.UID, e.GID = []int64{0, 1, 1000, 65_534, 3_000_000}[l.r.IntN(5)], []int64{0, 5, 1000, 4_000_000_000}[l.r.IntN(4)]
		e.MTime = []int64{0, 1, 1_000_000_000, 3_000_000_000}[l.r.IntN(4)]
	}
	if (e.Type == '0' || e.Type == '5') && l.r.IntN(4) == 0 {
		e.PAX = append(e.PAX, Record{"SCHILY.xattr.user.note", l.pick([]string{"x", "\x00\xff", strings.Repeat("v", 500)})})
	}
	if e.Type == '0' && l.r.IntN(8) == 0 {
		e.PAX = append(e.PAX, Record{"SCHILY.xattr.security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00" + strings.Repeat("\x00", 12)})
	}
	if l.model.entry(e) == nil {
		l.entries = append(l.entries, e)
	}
}

func (l *legal) file(name string) Entry {
	e := Entry{Name: name, Type: '0', Data: strings.Repeat("content ", l.r.IntN(200))}
	if l.r.IntN(6) == 0 {
		e.Sparse = l.pick([]string{"0.0", "0.1", "1.0"}) // GNU's own form is beyond umoci
		e.Size, e.Data = 100_000, ""
		for i := range l.r.IntN(30) {
			e.Pieces = append(e.Pieces, Piece{int64(i) * 3000, strings.Repeat("p", 1+l.r.IntN(900))})
		}
	}
	return e
}

// hardLink gives a file a further name, of this layer or a lower one, with the headers of the file, as real tools do.
func (l *legal) hardLink() {
	target := l.existing('0')
	if target == "" {
		return
	}
	k, err := l.model.find(target)
	if err != nil || k == nil {
		return
	}
	e := Entry{Name: l.fresh(), Type: '1', Link: target, Mode: k.mode, UID: k.uid, GID: k.gid, MTime: k.mtime}
	for _, name := range slices.Sorted(maps.Keys(k.xattrs)) {
		e.PAX = append(e.PAX, Record{"SCHILY.xattr." + name, k.xattrs[name]})
	}
	if strings.HasPrefix(target, e.Name+"/") {
		return // it would replace the directory that the file is in
	}
	if l.model.entry(e) == nil {
		l.entries = append(l.entries, e)
	}
}

// whiteout removes something that only a lower layer has.
func (l *legal) whiteout() {
	for _, p := range l.shuffled(l.below) {
		k, err := l.model.find(p)
		if err == nil && k != nil && k.layer != l.model.layer {
			l.add(Entry{Name: path.Join(path.Dir(p), ".wh."+path.Base(p)), Type: '0'})
			return
		}
	}
}

func (l *legal) list() map[string]string {
	out, err := l.model.List()
	if err != nil {
		return nil
	}
	return out
}

func (l *legal) shuffled(m map[string]string) []string {
	paths := slices.Sorted(maps.Keys(m))
	l.r.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	return paths
}

// existing is some path of a type, "" if there is none.
func (l *legal) existing(typ byte) string {
	now := l.list()
	for _, p := range l.shuffled(now) {
		if now[p][0] == typ {
			return p
		}
	}
	return ""
}

// fresh is a name in some directory, which may be there already, as anything.
func (l *legal) fresh() string {
	dir := ""
	if l.r.IntN(4) > 0 {
		dir = l.existing('5')
	}
	name := l.pick([]string{"a", "b", "c", "d", "e", "f", "g", "bin", "lib", "A", "trailing ", "new\nline", "\xff\xfe", "dot.", `back\slash`, "ümlaut", strings.Repeat("n", 200), strings.Repeat("é", 120)})
	return path.Join(dir, name)
}
