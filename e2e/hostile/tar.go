// SPDX-License-Identifier: Apache-2.0

// Package hostile makes tar files, layers and images that somebody with bad intentions, or an odd tool, might make, and says
// what they must come to: Cases is a grammar of names, types, link targets and orders with thousands of members, Legal makes
// ugly images that are allowed, Model is a small file system in memory that applies layers by the words of the specification
// and shares no code with the builder, and Canaries watch that nothing outside a root changes. It writes headers byte by
// byte, because the tar writers of libraries refuse to write what hurts. Nothing here is part of the binary.
package hostile

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// blockSize is what everything in a tar file is padded to.
const blockSize = 512

// Entry is one member of a tar file, with whatever it says of itself: nothing is checked or cleaned.
type Entry struct {
	Name string
	// Type is the type flag; 0 stays a NUL.
	Type byte
	// Link is the target of a link.
	Link         string
	Mode         int64
	UID, GID     int64
	MTime        int64
	Major, Minor int64
	Data         string
	// PAX are records of an extended header before the member, in this order. They win over what the header says.
	PAX []Record
	// Long has names that fit into the header written as GNU long names ('L') or PAX records ('x') all the same.
	Long byte
	// Sparse, if set, has Data written in pieces with holes: "gnu", "0.0", "0.1" or "1.0".
	Sparse string
	// Size is the logical size of a sparse file.
	Size int64
	// Pieces are a sparse file's data.
	Pieces []Piece
	// Claim, if not 0, is the size that the header claims instead of that of Data.
	Claim int64
	// BadSum has the checksum be wrong.
	BadSum bool
}

// Record is one record of a PAX header.
type Record struct{ Key, Value string }

// Piece is a range of a sparse file that is not a hole.
type Piece struct {
	Offset int64
	Data   string
}

// Content is what the file holds, holes included.
func (e Entry) Content() string {
	if e.Sparse == "" {
		return e.Data
	}
	b := make([]byte, e.Size)
	for _, p := range e.Pieces {
		copy(b[p.Offset:], p.Data)
	}
	return string(b)
}

// Tar writes a tar file with its end.
func Tar(entries []Entry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		e.write(&b)
	}
	b.Write(make([]byte, 2*blockSize))
	return b.Bytes()
}

func (e Entry) write(b *bytes.Buffer) {
	data := e.Data
	records := append([]Record(nil), e.PAX...)
	var gnu, more []byte
	if e.Sparse != "" {
		var m []Record
		m, gnu, more, data = e.sparse()
		records = append(records, m...)
	}
	for _, long := range []struct {
		text string
		gnu  byte
		pax  string
	}{{e.Name, 'L', "path"}, {e.Link, 'K', "linkpath"}} {
		if len(long.text) <= 100 && (e.Long == 0 || long.text == "") {
			continue
		}
		if e.Long == 'x' {
			records = append(records, Record{long.pax, long.text})
		} else {
			Entry{Name: "././@LongLink", Type: long.gnu, Data: long.text + "\x00"}.write(b)
		}
	}
	if len(records) > 0 {
		Entry{Name: "PaxHeaders/x", Type: 'x', Data: paxData(records)}.write(b)
	}
	b.Write(e.header(int64(len(data)), gnu))
	b.Write(more)
	pad(b, data)
}

func pad(b *bytes.Buffer, data string) {
	b.WriteString(data)
	if n := len(data) % blockSize; n != 0 {
		b.Write(make([]byte, blockSize-n))
	}
}

// header is the block before the data. gnu, if not nil, takes the place of the ustar prefix.
func (e Entry) header(size int64, gnu []byte) []byte {
	h := make([]byte, blockSize)
	copy(h[0:100], e.Name)
	copy(h[100:108], octal(e.Mode, 8))
	copy(h[108:116], octal(e.UID, 8))
	copy(h[116:124], octal(e.GID, 8))
	if e.Claim != 0 {
		size = e.Claim
	}
	copy(h[124:136], octal(size, 12))
	copy(h[136:148], octal(e.MTime, 12))
	h[156] = e.Type
	copy(h[157:257], e.Link)
	copy(h[257:265], "ustar\x0000")
	copy(h[329:337], octal(e.Major, 8))
	copy(h[337:345], octal(e.Minor, 8))
	if gnu != nil {
		copy(h[257:265], "ustar  \x00")
		copy(h[345:512], gnu)
	}
	sum := int64(8 * ' ')
	for i, c := range h {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	if e.BadSum {
		sum++
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// octal is a number as a field of n bytes, in GNU's binary form where it has no other.
func octal(v int64, n int) string {
	if v >= 0 && v < int64(1)<<(3*(n-1)) {
		return fmt.Sprintf("%0*o\x00", n-1, v)
	}
	b := make([]byte, n)
	for i := n - 1; i >= 0; i-- {
		b[i] = byte(v)
		v >>= 8
	}
	b[0] |= 0x80
	return string(b)
}

// paxData writes records as length, key and value; the length counts its own digits.
func paxData(records []Record) string {
	var b strings.Builder
	for _, r := range records {
		rest := " " + r.Key + "=" + r.Value + "\n"
		n := len(rest) + 1
		for n != len(rest)+len(strconv.Itoa(n)) {
			n = len(rest) + len(strconv.Itoa(n))
		}
		b.WriteString(strconv.Itoa(n) + rest)
	}
	return b.String()
}

// sparse returns what says where the pieces are: records, GNU's fields in the header and blocks after it, or a beginning of
// the data. There is always a piece without bytes at the end, as GNU tar writes it for a file that ends in a hole.
func (e Entry) sparse() (records []Record, gnu, blocks []byte, data string) {
	pieces := append(append([]Piece(nil), e.Pieces...), Piece{Offset: e.Size})
	var list []string
	for _, p := range pieces {
		list = append(list, strconv.FormatInt(p.Offset, 10), strconv.Itoa(len(p.Data)))
		data += p.Data
	}
	size := strconv.FormatInt(e.Size, 10)
	switch e.Sparse {
	case "gnu":
		gnu, blocks = gnuMap(pieces, e.Size)
		return nil, gnu, blocks, data
	case "0.0":
		records = []Record{{"GNU.sparse.size", size}, {"GNU.sparse.numblocks", strconv.Itoa(len(pieces))}}
		for i := 0; i < len(list); i += 2 {
			records = append(records, Record{"GNU.sparse.offset", list[i]}, Record{"GNU.sparse.numbytes", list[i+1]})
		}
		return records, nil, nil, data
	case "0.1":
		return []Record{
			{"GNU.sparse.size", size},
			{"GNU.sparse.numblocks", strconv.Itoa(len(pieces))},
			{"GNU.sparse.map", strings.Join(list, ",")},
		}, nil, nil, data
	default:
		var b bytes.Buffer
		pad(&b, strconv.Itoa(len(pieces))+"\n"+strings.Join(list, "\n")+"\n")
		return []Record{
			{"GNU.sparse.major", "1"},
			{"GNU.sparse.minor", "0"},
			{"GNU.sparse.name", e.Name},
			{"GNU.sparse.realsize", size},
		}, nil, nil, b.String() + data
	}
}

// gnuMap is the map of GNU's own form: four pieces in the header, 21 in each block after it. The blocks are not counted in
// the size of the member.
func gnuMap(pieces []Piece, size int64) (head, blocks []byte) {
	head = make([]byte, blockSize-345)
	field := func(b []byte, p Piece) {
		copy(b, octal(p.Offset, 12))
		copy(b[12:], octal(int64(len(p.Data)), 12))
	}
	for i := range min(4, len(pieces)) {
		field(head[386-345+24*i:], pieces[i])
	}
	copy(head[483-345:], octal(size, 12))
	if len(pieces) > 4 {
		head[482-345] = 1
	}
	for rest := pieces[min(4, len(pieces)):]; len(rest) > 0; {
		n := min(21, len(rest))
		block := make([]byte, blockSize)
		for i := range n {
			field(block[24*i:], rest[i])
		}
		if rest = rest[n:]; len(rest) > 0 {
			block[504] = 1
		}
		blocks = append(blocks, block...)
	}
	return head, blocks
}
