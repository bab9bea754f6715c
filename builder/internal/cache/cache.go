// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Options say how a Cache is used.
type Options struct {
	// TTL is the age from which records do not count; 0 for no limit.
	TTL time.Duration
	// ReadOnly writes nothing.
	ReadOnly bool
	// Warn is told what is wrong with a repository, once each.
	Warn func(string)
	// Now is the time by which records are old.
	Now func() time.Time
}

// Cache is what one build knows of its repositories. The zero Cache has none. It is safe for concurrent use.
type Cache struct {
	repos []Repository
	o     Options

	mu sync.Mutex
	// loaded is what was read, by tag; a repository that failed is not asked again.
	loaded map[string][]*Loaded
	failed map[Repository]bool
	// bad are records that were found to be wrong; noBases says so of layer indexes of base images.
	bad     map[string]bool
	noBases bool
	// fresh is what this build adds, by tag.
	fresh map[string]*Set
}

// New makes a Cache of repositories, in the order in which they are preferred.
func New(repos []Repository, o Options) *Cache {
	return &Cache{
		repos: repos, o: o,
		loaded: map[string][]*Loaded{}, failed: map[Repository]bool{}, bad: map[string]bool{}, fresh: map[string]*Set{},
	}
}

// Enabled tells whether there is any repository.
func (c *Cache) Enabled() bool { return c != nil && len(c.repos) > 0 }

// Tag is where the records of stages are kept that begin with a base, for one platform.
func Tag(base, platform string) string {
	sum := sha256.Sum256([]byte("kaniko-go cache 1\n" + base + "\n" + platform))
	return tagPrefix + hex.EncodeToString(sum[:8])
}

// Open reads the Sets of the tags from all repositories, at the same time, but for those that were read before. It does not fail.
func (c *Cache) Open(ctx context.Context, tags []string) {
	if !c.Enabled() {
		return
	}
	c.mu.Lock()
	tags = slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return c.loaded[tag] != nil })
	c.mu.Unlock()
	g := errgroup.Group{}
	got := make([][]*Loaded, len(tags))
	for i, tag := range tags {
		got[i] = make([]*Loaded, len(c.repos))
		for j, repo := range c.repos {
			g.Go(func() error {
				l, err := repo.Load(ctx, tag)
				if err != nil && ctx.Err() == nil {
					c.fail(repo, "read", err)
				}
				got[i][j] = l
				return nil
			})
		}
	}
	_ = g.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, tag := range tags {
		c.loaded[tag] = append([]*Loaded{}, slices.DeleteFunc(got[i], func(l *Loaded) bool { return l == nil })...)
	}
}

// fail gives up on a repository.
func (c *Cache) fail(repo Repository, what string, err error) {
	c.mu.Lock()
	told := c.failed[repo]
	c.failed[repo] = true
	c.mu.Unlock()
	if !told {
		c.o.Warn(fmt.Sprintf("cache %s cannot be %s, going on without it: %v", repo, what, err))
	}
}

// Hit is a record and where its layer is.
type Hit struct {
	Record
	from *Loaded
}

// Layer is the layer in its repository.
func (h *Hit) Layer(ctx context.Context) (v1.Layer, error) {
	return h.from.Layer(ctx, h.Record.Layer, h.DiffID)
}

// OpenIndex opens the layer index; nil if there is none. Its bytes are verified while they are read.
func (h *Hit) OpenIndex(ctx context.Context) (io.ReadCloser, error) {
	if h.Index == nil {
		return nil, nil //nolint:nilnil // said above
	}
	return openIndex(ctx, h.from, *h.Index)
}

// Sound finds out whether the layer can be had.
func (h *Hit) Sound(ctx context.Context) error { return h.from.Sound(ctx, h.Record.Layer) }

// Local tells whether the layer is on a disk, where nobody else checks its bytes.
func (h *Hit) Local() bool { return h.from.Local }

// Find returns the records of an operation that was done on the layers with a chainID, newest first.
func (c *Cache) Find(tag, op, parent string) []*Hit {
	return c.find(tag, func(r Record) bool { return r.Op == op && r.Parent == parent })
}

// Knows tells whether there is any record of an operation, on whatever layers.
func (c *Cache) Knows(tag, op string) bool {
	return len(c.find(tag, func(r Record) bool { return r.Op == op })) > 0
}

// HasRecords tells whether any repository has anything under the tag that counts.
func (c *Cache) HasRecords(tag string) bool {
	return len(c.find(tag, func(Record) bool { return true })) > 0
}

func (c *Cache) find(tag string, match func(Record) bool) []*Hit {
	if !c.Enabled() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*Hit
	for _, l := range c.loaded[tag] {
		for _, r := range l.Records {
			if match(r) && !c.bad[r.identity()] && (c.o.TTL == 0 || c.o.Now().Sub(r.Created) < c.o.TTL) {
				out = append(out, &Hit{r, l})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *Hit) int { return b.Created.Compare(a.Created) })
	return out
}

// Discard makes a record not count any more in this build.
func (c *Cache) Discard(h *Hit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bad[h.identity()] = true
}

// DiscardBases makes the layer indexes of base images not count any more in this build.
func (c *Cache) DiscardBases() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noBases = true
}

// BaseIndex opens the layer index of a layer of a base image; nil if nobody has it. Its bytes are verified while they are read.
func (c *Cache) BaseIndex(ctx context.Context, tag string, diffID v1.Hash) (io.ReadCloser, v1.Hash, error) {
	if !c.Enabled() {
		return nil, v1.Hash{}, nil
	}
	c.mu.Lock()
	loaded, none := c.loaded[tag], c.noBases
	c.mu.Unlock()
	if none {
		return nil, v1.Hash{}, nil
	}
	for _, l := range loaded {
		for _, b := range l.Bases {
			if b.DiffID == diffID {
				r, err := openIndex(ctx, l, b.Index)
				return r, b.Index.Digest, err
			}
		}
	}
	return nil, v1.Hash{}, nil
}

// HasBaseIndex tells whether BaseIndex has something to open.
func (c *Cache) HasBaseIndex(tag string, diffID v1.Hash) bool {
	if !c.Enabled() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.loaded[tag] {
		if !c.noBases && slices.ContainsFunc(l.Bases, func(b Base) bool { return b.DiffID == diffID }) {
			return true
		}
	}
	return false
}

func openIndex(ctx context.Context, l *Loaded, d v1.Descriptor) (io.ReadCloser, error) {
	r, err := l.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	return &verified{ReadCloser: r, want: d, sum: sha256.New(), drop: l.Drop}, nil
}

// Why tells which inputs are not those of the nearest record: the one of an instruction of the same kind that has the most
// inputs in common; where all are the same it was done on other layers. It is nil if there is no such record.
func (c *Cache) Why(tag string, inputs []Input) []string {
	want := map[string]string{}
	for _, in := range inputs {
		want[in.Name] = in.Sum[:min(shortSum, len(in.Sum))]
	}
	var (
		nearest *Hit
		most    = -1
	)
	for _, h := range c.find(tag, func(r Record) bool {
		return len(r.Inputs) > 0 && len(inputs) > 0 && r.Inputs[0].Sum == want[inputs[0].Name]
	}) {
		same := 0
		for _, in := range h.Inputs {
			if want[in.Name] == in.Sum {
				same++
			}
		}
		if same > most {
			nearest, most = h, same
		}
	}
	if nearest == nil {
		return nil
	}
	var changed []string
	for _, in := range nearest.Inputs {
		if sum, ok := want[in.Name]; !ok || sum != in.Sum {
			changed = append(changed, in.Name)
		}
		delete(want, in.Name)
	}
	for _, in := range inputs {
		if _, left := want[in.Name]; left {
			changed = append(changed, in.Name)
		}
	}
	if changed == nil {
		return []string{"the layers below"}
	}
	return changed
}

// Made is a layer that a build made, or the index of a base's layer.
type Made struct {
	Layer v1.Layer
	Path  string
}

// Add remembers a record, or a base's index, of this build, and stores what it refers to. It does not fail.
func (c *Cache) Add(ctx context.Context, tag string, add Set, blobs ...Made) {
	if !c.Enabled() || c.o.ReadOnly {
		return
	}
	for i := range add.Records {
		add.Records[i] = add.Records[i].sealed()
	}
	for i := range add.Bases {
		add.Bases[i].Check = add.Bases[i].check()
	}
	c.add(ctx, c.writable(), tag, add, blobs)
}

// AddLocal is Add for the directories among the repositories, and for what comes from another of them.
func (c *Cache) AddLocal(ctx context.Context, tag string, add Set, blobs ...Made) {
	for i := range add.Records {
		add.Records[i] = add.Records[i].sealed()
	}
	c.add(ctx, slices.DeleteFunc(c.writable(), func(r Repository) bool {
		_, local := r.(*layoutRepository)
		return !local
	}), tag, add, blobs)
}

func (c *Cache) add(ctx context.Context, repos []Repository, tag string, add Set, blobs []Made) {
	for _, repo := range repos {
		for _, b := range blobs {
			if err := repo.Put(ctx, b.Layer, b.Path); err != nil {
				if ctx.Err() == nil {
					c.fail(repo, "written", err)
				}
				break
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.fresh[tag]
	if s == nil {
		s = &Set{}
		c.fresh[tag] = s
	}
	s.About = cmp.Or(s.About, add.About)
	s.Records = append(s.Records, add.Records...)
	s.Bases = append(s.Bases, add.Bases...)
}

func (c *Cache) writable() []Repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.repos), func(r Repository) bool {
		l, local := r.(*layoutRepository)
		return c.failed[r] || local && l.ReadOnly()
	})
}

// Flush writes the records of this build. It does not fail.
func (c *Cache) Flush(ctx context.Context) {
	if !c.Enabled() || c.o.ReadOnly {
		return
	}
	c.mu.Lock()
	fresh := c.fresh
	c.fresh = map[string]*Set{}
	c.mu.Unlock()
	oldest := time.Time{}
	if c.o.TTL > 0 {
		oldest = c.o.Now().Add(-c.o.TTL)
	}
	g := errgroup.Group{}
	for _, repo := range c.writable() {
		g.Go(func() error {
			for tag, set := range fresh {
				if err := repo.Merge(ctx, tag, set, oldest); err != nil {
					c.fail(repo, "written", err)
					return nil
				}
			}
			return nil
		})
	}
	_ = g.Wait()
}

// ChainID is the digest of a stack of layers: that of the stack below, "" for none, and one more layer.
func ChainID(parent string, diffID v1.Hash) string {
	if parent == "" {
		return diffID.String()
	}
	sum := sha256.Sum256([]byte(parent + " " + diffID.String()))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Reason is why something was not taken from the cache, for people.
func Reason(changed []string) string {
	const most = 3
	switch n := len(changed); {
	case n == 0:
		return ""
	case n > most:
		return strings.Join(changed[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	default:
		return strings.Join(changed, ", ")
	}
}

// verified checks at the end what it gave.
type verified struct {
	io.ReadCloser
	want v1.Descriptor
	sum  interface {
		io.Writer
		Sum(b []byte) []byte
	}
	n int64
	// drop, if set, removes what is wrong.
	drop func(v1.Descriptor)
}

// Read implements io.Reader.
func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.sum.Write(p[:n])
	v.n += int64(n)
	if v.n > v.want.Size || errors.Is(err, io.EOF) && (v.n != v.want.Size || hex.EncodeToString(v.sum.Sum(nil)) != v.want.Digest.Hex) {
		if v.drop != nil {
			v.drop(v.want)
		}
		return n, fmt.Errorf("%s has other bytes than its digest says", v.want.Digest)
	}
	return n, err
}
