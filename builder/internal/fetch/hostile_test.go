// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v6/plumbing"
	formatcfg "github.com/go-git/go-git/v6/plumbing/format/config"
	"github.com/google/go-cmp/cmp"
)

// serveTree serves a commit of a tree object, however strange, that git itself would not serve, and more objects.
func serveTree(t *testing.T, root string, more ...packObject) string {
	t.Helper()
	text := []byte("tree " + objectName(plumbing.TreeObject, []byte(root)).String() + "\n\n")
	commit := objectName(plumbing.CommitObject, text).String()
	pack := makePack(append(more, packObject{kind: 1, data: text}, packObject{kind: 2, data: []byte(root)})...)
	refs := []string{commit + " HEAD\x00symref=HEAD:refs/heads/main", commit + " refs/heads/main"}
	return fakeServer(t, refs, func() []byte { return pack }) + "/r.git"
}

func TestGitHostileTrees(t *testing.T) {
	var objects []packObject
	put := func(kind plumbing.ObjectType, data string) string {
		objects = append(objects, packObject{kind: int(kind), data: []byte(data)})
		return objectName(kind, []byte(data)).String()
	}
	blob := put(plumbing.BlobObject, "x")
	empty := put(plumbing.TreeObject, "")
	sub := put(plumbing.TreeObject, raw("100644", "f", blob))
	nul, long, nothing := put(plumbing.BlobObject, "a\x00b"), put(plumbing.BlobObject, strings.Repeat("a", 4096)), put(plumbing.BlobObject, "")
	missing := strings.Repeat("1", 40)
	for _, tt := range []struct {
		name, tree string
		is         error
		text       string
		want       map[string]string
	}{
		{name: "empty directory", tree: raw("40000", "d", empty) + raw("100664", "f", blob), want: map[string]string{"f": "file 644 x"}},
		{name: "dots", tree: raw("40000", "..", sub), is: ErrForbidden},
		{name: "dot", tree: raw("40000", ".", sub), is: ErrForbidden},
		{name: "no name", tree: raw("40000", "", sub), is: ErrForbidden},
		{name: "slash", tree: raw("100644", "../../etc/passwd", blob), is: ErrForbidden},
		{name: "git directory", tree: raw("40000", ".git", sub), is: ErrForbidden, text: ".git"},
		{name: "git directory in capitals", tree: raw("40000", ".GiT", sub), is: ErrForbidden},
		{name: "git directory as a link", tree: raw("120000", ".git", blob), is: ErrForbidden},
		{name: "twice", tree: raw("120000", "a", blob) + raw("40000", "a", sub), is: ErrForbidden, text: "twice"},
		{name: "long name", tree: raw("100644", strings.Repeat("a", 256), blob), is: ErrForbidden},
		{name: "device", tree: raw("20000", "a", blob), is: ErrForbidden, text: "mode 20000"},
		{name: "mode no number", tree: raw("abc", "a", blob), is: errPack},
		{name: "cut off", tree: raw("100644", "a", blob)[:20], is: errPack},
		{name: "tree as a file", tree: raw("100644", "a", sub), is: errPack, text: "tree"},
		{name: "file as a tree", tree: raw("40000", "a", blob), is: errPack},
		{name: "link with a NUL", tree: raw("120000", "a", nul), is: ErrForbidden},
		{name: "long link", tree: raw("120000", "a", long), is: ErrLimit},
		{name: "empty link", tree: raw("120000", "a", nothing), is: ErrForbidden},
		{name: "submodule without .gitmodules", tree: raw("160000", "m", missing), text: "no url found for submodule path"},
		{name: ".gitmodules as a link", tree: raw("120000", ".gitmodules", blob) + raw("160000", "m", missing), is: ErrForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := Git(t.Context(), newStore(t), serveTree(t, tt.tree, objects...), gitOptions())
			if tt.want != nil {
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, list(t, got)); diff != "" {
					t.Error(diff)
				}
				return
			}
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestGitTreeBomb has one file in 10^12 paths, in some hundred bytes.
func TestGitTreeBomb(t *testing.T) {
	objects := []packObject{{kind: 3, data: []byte("x")}}
	lines := raw("100644", "0", objectName(plumbing.BlobObject, []byte("x")).String())
	for range 12 {
		objects = append(objects, packObject{kind: 2, data: []byte(lines)})
		h := objectName(plumbing.TreeObject, []byte(lines)).String()
		lines = ""
		for i := range 10 {
			lines += raw("40000", fmt.Sprint(i), h)
		}
	}
	url := serveTree(t, lines, objects...)
	start := time.Now()
	o := gitOptions()
	o.MaxEntries = 10_000
	if _, _, err := Git(t.Context(), newStore(t), url, o); !errors.Is(err, ErrLimit) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("it took %s", d)
	}
}

// pkt is one pkt-line.
func pkt(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

// fakeServer speaks as much of the protocol as a lie takes.
func fakeServer(t *testing.T, refs []string, pack func() []byte) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/info/refs") {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, pkt("# service=git-upload-pack\n")+"0000")
			for _, ref := range refs {
				_, _ = io.WriteString(w, pkt(ref+"\n"))
			}
			_, _ = io.WriteString(w, "0000")
			return
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		_, _ = io.WriteString(w, pkt("NAK\n"))
		_, _ = w.Write(pack())
	}).URL
}

func TestGitHostileServers(t *testing.T) {
	const sha = "1111111111111111111111111111111111111111"
	pack := func() []byte { return makePack(packObject{kind: 3, data: []byte("x")}) }
	for _, tt := range []struct {
		name string
		refs []string
		pack func() []byte
		is   error
		text string
	}{
		{name: "default branch is an option", refs: []string{sha + " HEAD\x00symref=HEAD:--upload-pack=x"}, is: ErrForbidden},
		{name: "default branch leads out", refs: []string{sha + " HEAD\x00symref=HEAD:refs/heads/../../config"}, is: ErrForbidden},
		{name: "default branch is long", refs: []string{sha + " HEAD\x00symref=HEAD:refs/heads/" + strings.Repeat("a", 4000)}, is: ErrForbidden},
		{name: "no default branch", refs: []string{sha + " refs/heads/main\x00shallow"}, text: "could not find default branch"},
		{name: "not the object", refs: []string{sha + " HEAD\x00symref=HEAD:refs/heads/main", sha + " refs/heads/main"}, is: errPack, text: "object " + sha + " is missing"},
		{name: "no pack", refs: []string{sha + " HEAD\x00ofs-delta"}, pack: func() []byte { return []byte("PACX0000000000000000000000000000000") }, is: errPack},
		{name: "unknown hash", refs: []string{strings.Repeat("1", 64) + " HEAD\x00object-format=sha3"}, text: "of an unknown kind, sha3"},
		{name: "names of another kind", refs: []string{strings.Repeat("1", 64) + " HEAD\x00object-format=sha1"}, text: "no name of an object in a repository of sha1"},
		{name: "no refs", refs: nil, text: "empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.pack == nil {
				tt.pack = pack
			}
			url := fakeServer(t, tt.refs, tt.pack)
			_, _, err := Git(t.Context(), newStore(t), url+"/r.git", gitOptions())
			var e *Error
			if !errors.As(err, &e) || e.Temporary || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// fakeServer2 speaks as much of protocol 2 as a lie takes: what it can do, its refs, and its answers to fetches, of which the last one
// is given again.
func fakeServer2(t *testing.T, capabilities []string, refs string, answers ...string) string {
	t.Helper()
	asked := 0
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		switch {
		case err != nil:
			t.Error(err)
		case strings.HasSuffix(r.URL.Path, "/info/refs"):
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, pkt("# service=git-upload-pack\n")+"0000"+pkt("version 2\n"))
			for _, c := range capabilities {
				_, _ = io.WriteString(w, pkt(c+"\n"))
			}
			_, _ = io.WriteString(w, "0000")
		case bytes.Contains(body, []byte("command=ls-refs")):
			_, _ = io.WriteString(w, refs)
		default:
			_, _ = io.WriteString(w, answers[min(asked, len(answers)-1)])
			asked++
		}
	}).URL + "/r.git"
}

// packed is the answer that has a pack.
func packed(pack []byte) string {
	return pkt("packfile\n") + pkt("\x01"+string(pack)) + "0000"
}

func TestGitHostileServers2(t *testing.T) {
	const sha = "1111111111111111111111111111111111111111"
	blob := makePack(packObject{kind: 3, data: []byte("x")})
	able := []string{"ls-refs=unborn", "fetch=shallow", "object-format=sha1"}
	main := pkt(sha+" HEAD symref-target:refs/heads/main\n") + pkt(sha+" refs/heads/main\n") + "0000"
	notOurs := pkt("ERR upload-pack: not our ref " + sha + "\n")
	for _, tt := range []struct {
		name, ref    string
		capabilities []string
		refs         string
		answers      []string
		is           error
		text         string
		temporary    bool
	}{
		{name: "not the object", answers: []string{packed(blob)}, is: errPack, text: "object " + sha + " is missing"},
		{name: "no pack", answers: []string{"0000"}, text: "no packfile"},
		{name: "another answer", answers: []string{"<html>"}, text: "pkt"},
		{name: "half a pack", answers: []string{pkt("packfile\n") + pkt("\x01"+string(blob[:20]))}, is: errPack},
		{name: "the server's own trouble", answers: []string{pkt("packfile\n") + pkt("\x03out of \x1b[31mmemory\n")}, text: `out of \x1b[31mmemory`},
		{name: "the branch has moved", answers: []string{notOurs}, temporary: true, text: "not our ref"},
		{name: "default branch is an option", refs: pkt(sha+" HEAD symref-target:--upload-pack=x\n") + pkt(sha+" refs/heads/x\n") + "0000", is: ErrForbidden},
		{name: "default branch leads out", refs: pkt(sha+" HEAD symref-target:refs/heads/../../config\n") + pkt(sha+" refs/heads/x\n") + "0000", is: ErrForbidden},
		{name: "default branch is not there", refs: pkt(sha+" HEAD symref-target:refs/heads/main\n") + pkt(sha+" refs/heads/other\n") + "0000", text: "could not find default branch"},
		{name: "no refs", refs: "0000", text: "empty"},
		{name: "other refs than were asked for", ref: "x", refs: main, text: "does not contain ref x"},
		{name: "no ref of the name", ref: "x", refs: "0000", text: "does not contain ref x"},
		{name: "no names of objects", refs: pkt("xyz HEAD\n") + "0000", text: "malformed"},
		{name: "unknown hash", capabilities: []string{"ls-refs", "fetch", "object-format=sha3"}, text: "of an unknown kind, sha3"},
		{name: "names of another kind", refs: pkt(strings.Repeat("1", 64)+" HEAD\n") + "0000", text: "no name of an object in a repository of sha1"},
		{name: "no such commit", ref: sha, answers: []string{notOurs}, text: "does not give out commit " + sha},
		{name: "commit not given out by its name", ref: sha, refs: pkt(strings.Repeat("2", 40)+" refs/heads/main\n") + "0000", answers: []string{pkt("ERR want " + sha + " not valid\n"), packed(blob)}, text: "none of its branches and tags"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.capabilities == nil {
				tt.capabilities = able
			}
			if tt.refs == "" {
				tt.refs = main
			}
			if tt.answers == nil {
				tt.answers = []string{packed(blob)}
			}
			url := fakeServer2(t, tt.capabilities, tt.refs, tt.answers...)
			if tt.ref != "" {
				url += "#" + tt.ref
			}
			o := gitOptions()
			o.Network.Timing.RetryBudget = time.Millisecond
			_, _, err := Git(t.Context(), newStore(t), url, o)
			var e *Error
			if !errors.As(err, &e) || e.Temporary != tt.temporary || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestGitEndlessRefs has a server that never stops to list refs.
func TestGitEndlessRefs(t *testing.T) {
	line := []byte(strings.Repeat(pkt("1111111111111111111111111111111111111111 refs/heads/"+strings.Repeat("x", 900)+"\n"), 100))
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, pkt("# service=git-upload-pack\n")+"0000"+pkt("version 2\n")+pkt("ls-refs\n")+pkt("fetch\n")+"0000")
			return
		}
		for {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	o := gitOptions()
	o.Network.Timing.NoProgress = time.Minute
	if _, _, err := Git(t.Context(), newStore(t), srv.URL+"/r.git", o); !errors.Is(err, ErrLimit) {
		t.Errorf("got %v", err)
	}
}

// objectName is the name of an object where names are SHA-1.
func objectName(kind plumbing.ObjectType, data []byte) plumbing.Hash {
	h := plumbing.NewHasher(formatcfg.SHA1, kind, int64(len(data)))
	_, _ = h.Write(data)
	return h.Sum()
}

// packObject is an object of a pack: kind is the format's, base a distance for 6 and a name for 7.
type packObject struct {
	kind int
	size int // if it is not that of data
	data []byte
	ofs  int64
	ref  plumbing.Hash
}

// makePack writes a pack, with a right digest.
func makePack(objects ...packObject) []byte {
	var b bytes.Buffer
	b.WriteString("PACK")
	_ = binary.Write(&b, binary.BigEndian, []uint32{2, uint32(len(objects))})
	for _, o := range objects {
		size := o.size
		if size == 0 {
			size = len(o.data)
		}
		c := byte(o.kind<<4 | size&15)
		for size >>= 4; size > 0; size >>= 7 {
			b.WriteByte(c | 0x80)
			c = byte(size & 0x7f)
		}
		b.WriteByte(c)
		switch o.kind {
		case 6:
			b.Write(distance(o.ofs))
		case 7:
			b.Write(o.ref.Bytes())
		}
		z := zlib.NewWriter(&b)
		_, _ = z.Write(o.data)
		_ = z.Close()
	}
	sum := sha1.Sum(b.Bytes())
	b.Write(sum[:])
	return b.Bytes()
}

// distance is the encoding of an offset to a base.
func distance(n int64) []byte {
	out := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		n--
		out = append([]byte{byte(n&0x7f) | 0x80}, out...)
	}
	return out
}

// delta makes a delta of instructions.
func deltaOf(from, to int, instructions ...byte) []byte {
	b := binary.AppendUvarint(nil, uint64(from))
	b = binary.AppendUvarint(b, uint64(to))
	return append(b, instructions...)
}

func TestPack(t *testing.T) {
	base := []byte("hello world")
	name := objectName(plumbing.BlobObject, base)
	// Copies "hello", inserts "!!".
	change := deltaOf(len(base), 7, 0x90, 5, 2, '!', '!')
	changed := objectName(plumbing.BlobObject, []byte("hello!!"))
	first := packObject{kind: 3, data: base}
	firstLen := int64(len(makePack(first)) - 32)
	for _, tt := range []struct {
		name string
		pack []byte
		max  int64
		want []string
		is   error
	}{
		{name: "blob", pack: makePack(first), want: []string{"hello world"}},
		{name: "delta by offset", pack: makePack(first, packObject{kind: 6, ofs: firstLen, data: change}), want: []string{"hello world", "hello!!"}},
		{name: "delta by name", pack: makePack(first, packObject{kind: 7, ref: name, data: change}), want: []string{"hello world", "hello!!"}},
		{name: "delta before its base", pack: makePack(packObject{kind: 7, ref: name, data: change}, first), want: []string{"hello world", "hello!!"}},
		{
			name: "chain in reverse",
			pack: makePack(packObject{kind: 7, ref: changed, data: deltaOf(7, 2, 0x91, 5, 2)}, packObject{kind: 7, ref: name, data: change}, first),
			want: []string{"hello world", "hello!!", "!!"},
		},
		{name: "thin", pack: makePack(packObject{kind: 7, ref: name, data: change}), is: errPack},
		{name: "cycle", pack: makePack(packObject{kind: 7, ref: changed, data: change}), is: errPack},
		{name: "offset to nothing", pack: makePack(first, packObject{kind: 6, ofs: firstLen - 1, data: change}), is: errPack},
		{name: "offset before the pack", pack: makePack(first, packObject{kind: 6, ofs: 1 << 40, data: change}), is: errPack},
		{name: "unknown type", pack: makePack(packObject{kind: 5, data: base}), is: errPack},
		{name: "other base", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(3, 1, 1, 'x')}), is: errPack},
		{name: "copy out of range", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(11, 5, 0x91, 10, 5)}), is: errPack},
		{name: "makes more", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(11, 1, 0x90, 5)}), is: errPack},
		{name: "makes less", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(11, 9, 0x90, 5)}), is: errPack},
		{name: "reserved instruction", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(11, 1, 0)}), is: errPack},
		{name: "insert cut off", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(11, 9, 9, 'x')}), is: errPack},
		{name: "copy cut off", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(11, 9, 0x91)}), is: errPack},
		{name: "empty delta", pack: makePack(first, packObject{kind: 7, ref: name}), is: errPack},
		{name: "says more than it has", pack: makePack(packObject{kind: 3, size: 100, data: base}), is: errPack},
		{name: "has more than it says", pack: makePack(packObject{kind: 3, size: 3, data: base}), is: errPack},
		{name: "too large", pack: makePack(packObject{kind: 3, size: 1 << 40, data: base}), max: 1000, is: ErrLimit},
		{name: "delta too large", pack: makePack(first, packObject{kind: 7, ref: name, size: 1 << 40, data: change}), max: 1000, is: ErrLimit},
		{name: "delta makes too much", pack: makePack(first, packObject{kind: 7, ref: name, data: deltaOf(11, 1<<50)}), max: 1000, is: ErrLimit},
		{name: "objects that are not there", pack: append([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"), make([]byte, 20)...), is: ErrLimit},
		{name: "cut off", pack: makePack(first)[:20], is: errPack},
		{name: "nothing", pack: nil, is: errPack},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.max == 0 {
				tt.max = 1 << 20
			}
			o, err := unpackBytes(t, tt.pack, tt.max)
			if tt.is != nil {
				if !errors.Is(err, tt.is) {
					t.Errorf("got %v, want %v", err, tt.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tt.want {
				b, err := o.read(objectName(plumbing.BlobObject, []byte(text)), plumbing.BlobObject, 1000)
				if err != nil || string(b) != text {
					t.Errorf("%q: %q, %v", text, b, err)
				}
			}
			if len(o.byHash) != len(tt.want) {
				t.Errorf("there are %d objects", len(o.byHash))
			}
		})
	}
}

func unpackBytes(tb testing.TB, pack []byte, limit int64) (*objects, error) {
	tb.Helper()
	spool := func() (*os.File, error) {
		f, err := os.CreateTemp(tb.TempDir(), "")
		if err == nil {
			err = os.Remove(f.Name())
		}
		return f, err
	}
	f, err := spool()
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(pack); err != nil {
		tb.Fatal(err)
	}
	file, err := spool()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = file.Close() })
	o := makeObjects(file, limit, 1000, spool)
	_, err = o.unpack(tb.Context(), f, formatcfg.SHA1, true)
	return o, err
}

// TestPackBomb has a chain of deltas that doubles with every link.
func TestPackBomb(t *testing.T) {
	data := bytes.Repeat([]byte{0}, 1<<10)
	objects := []packObject{{kind: 3, data: data}}
	size := len(data)
	name := objectName(plumbing.BlobObject, data)
	for size < 8<<20 {
		n := []byte{byte(size), byte(size >> 8), byte(size >> 16)}
		twice := append([]byte{0xf0}, n...)
		objects = append(objects, packObject{kind: 7, ref: name, data: deltaOf(size, 2*size, append(twice, twice...)...)})
		size *= 2
		name = objectName(plumbing.BlobObject, make([]byte, size))
	}
	if _, err := unpackBytes(t, makePack(objects...), 1<<20); !errors.Is(err, ErrLimit) {
		t.Errorf("got %v", err)
	}
	o, err := unpackBytes(t, makePack(objects...), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.get(name); err != nil || got.size != int64(size) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzPack(f *testing.F) {
	base := packObject{kind: 3, data: []byte("hello world")}
	name := objectName(plumbing.BlobObject, base.data)
	f.Add(makePack(base))
	f.Add(makePack(base, packObject{kind: 7, ref: name, data: deltaOf(11, 7, 0x90, 5, 2, '!', '!')}))
	f.Add(makePack(packObject{kind: 2, data: []byte(raw("100644", "f", name.String()))}))
	f.Fuzz(func(t *testing.T, pack []byte) {
		o, err := unpackBytes(t, pack, 1<<16)
		if err != nil {
			return
		}
		for h, obj := range o.byHash {
			b, err := o.read(h, obj.kind, 1<<16)
			if err != nil {
				t.Fatal(err)
			}
			if got := objectName(obj.kind, b); got != h {
				t.Errorf("object %s has the content of %s", h, got)
			}
			_, _ = o.commit(h)
			_, _ = o.tag(h)
			_, _ = o.tree(h)
		}
	})
}
