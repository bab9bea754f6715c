// SPDX-License-Identifier: Apache-2.0

// Package cache remembers what instructions made. A record says: on the layers with
// this chainID, an operation with these inputs made this layer. As the chainID stands for the exact contents below, records of different builds
// can be combined only where one of them really had that chain.
//
// Records of stages that begin on one base are kept together, as one manifest under one tag, so that a build reads
// all it needs with one or two requests before anything runs. They are in a registry's repository, in an OCI
// layout on disk, or in both. Whatever is wrong with a cache is a miss and a warning, never a failure.
package cache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

const (
	// recordsType is the media type of a Set as a blob: JSON, compressed.
	recordsType types.MediaType = "application/vnd.kaniko-go.cache.v1+json+zstd"
	// maxRecords are kept in one Set; the oldest go first.
	maxRecords = 2000
	// maxSetBytes bounds what a Set is decompressed to.
	maxSetBytes = 64 << 20
)

// Input is one thing that decides what an operation makes. Of the value only a digest is kept.
type Input struct {
	Name string `json:"n"`
	Sum  string `json:"s"`
}

// NewInput makes an Input of a value.
func NewInput(name, value string) Input {
	sum := sha256.Sum256([]byte(value))
	return Input{Name: name, Sum: hex.EncodeToString(sum[:])}
}

// short is enough to tell which input changed; whether any did, the operation's digest says.
const shortSum = 12

// Op is the digest of an operation: of all its inputs, in order.
func Op(inputs []Input) string {
	h := sha256.New()
	frame := func(s string) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(s)))
		_, _ = io.WriteString(h, s)
	}
	for _, in := range inputs {
		frame(in.Name)
		frame(in.Sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Record is one layer that a build made.
type Record struct {
	// Op is the digest of the operation, Parent the chainID of the layers it was done on, "" for none.
	Op     string `json:"op"`
	Parent string `json:"parent,omitempty"`
	// Layer, DiffID and Index are what it made. Index is nil if the layer can have none.
	Layer  v1.Descriptor  `json:"layer"`
	DiffID v1.Hash        `json:"diffID"`
	Index  *v1.Descriptor `json:"index,omitempty"`
	// Text is the instruction as written in the Dockerfile.
	Text    string    `json:"text"`
	Inputs  []Input   `json:"inputs"`
	Created time.Time `json:"created"`
	// Check is a digest of all the rest, against damage.
	Check string `json:"check"`
}

func (r Record) check() string {
	r.Check = ""
	b, err := json.Marshal(r)
	if err != nil {
		return "" // no field can fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// sealed returns r as it is stored.
func (r Record) sealed() Record {
	r.Created = r.Created.UTC().Round(0)
	inputs := make([]Input, len(r.Inputs))
	for i, in := range r.Inputs {
		inputs[i] = Input{in.Name, in.Sum[:min(shortSum, len(in.Sum))]}
	}
	r.Inputs = inputs
	r.Check = r.check()
	return r
}

// identity tells records apart; of two with the same one, the newer is as good as both.
func (r Record) identity() string { return r.Op + r.Parent + r.DiffID.String() }

// Base is a layer of a base image whose index is known.
type Base struct {
	DiffID v1.Hash       `json:"diffID"`
	Index  v1.Descriptor `json:"index"`
	Check  string        `json:"check"`
}

func (b Base) check() string {
	sum := sha256.Sum256([]byte(b.DiffID.String() + " " + b.Index.Digest.String() + fmt.Sprint(b.Index.Size)))
	return hex.EncodeToString(sum[:])
}

// Set is what is kept under one tag.
type Set struct {
	// About is the base and the platform that the tag stands for, for people.
	About   string   `json:"about,omitempty"`
	Records []Record `json:"records"`
	Bases   []Base   `json:"bases,omitempty"`
}

// encode makes the blob of a Set.
func (s *Set) encode() ([]byte, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return z.EncodeAll(raw, nil), z.Close()
}

// decode reads a blob. Records that are damaged are left out.
func decode(blob []byte) (*Set, error) {
	z, err := zstd.NewReader(bytes.NewReader(blob), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxSetBytes))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	raw, err := io.ReadAll(io.LimitReader(z, maxSetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxSetBytes {
		return nil, errors.New("the records are too large")
	}
	s := &Set{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, err
	}
	s.Records = slices.DeleteFunc(s.Records, func(r Record) bool { return r.Check != r.check() })
	s.Bases = slices.DeleteFunc(s.Bases, func(b Base) bool { return b.Check != b.check() })
	return s, nil
}

// merge adds what is new to what is there, without what is older than oldest.
func (s *Set) merge(add *Set, oldest time.Time) *Set {
	out := &Set{About: cmp.Or(add.About, s.About)}
	seen := map[string]bool{}
	all := append(slices.Clone(add.Records), s.Records...)
	slices.SortStableFunc(all, func(a, b Record) int { return cmp.Compare(b.Created.Unix(), a.Created.Unix()) })
	for _, r := range all {
		if seen[r.identity()] || r.Created.Before(oldest) || len(out.Records) == maxRecords {
			continue
		}
		seen[r.identity()] = true
		out.Records = append(out.Records, r)
	}
	for _, b := range append(slices.Clone(add.Bases), s.Bases...) {
		if !seen[b.DiffID.String()] {
			seen[b.DiffID.String()] = true
			out.Bases = append(out.Bases, b)
		}
	}
	return out
}

// blobs are everything that a Set refers to.
func (s *Set) blobs() []v1.Descriptor {
	var out []v1.Descriptor
	seen := map[v1.Hash]bool{}
	add := func(d v1.Descriptor) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			out = append(out, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		}
	}
	for _, r := range s.Records {
		add(r.Layer)
		if r.Index != nil {
			add(*r.Index)
		}
	}
	for _, b := range s.Bases {
		add(b.Index)
	}
	return out
}

// manifest keeps the blobs of a Set alive in a registry, and leads to the Set itself.
func (s *Set) manifest(config v1.Descriptor) ([]byte, error) {
	return json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        config,
		Layers:        s.blobs(),
	})
}
