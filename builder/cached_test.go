// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	ggcrremote "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
	"github.com/kaniko-go/kaniko-go/builder/registry"
)

var damages = flag.Int("cache-damages", 100, "how often a cache is damaged, in each of two kinds of place")

// cacheWorld is a registry in which a project was built with a cache, and what a build of the project as it is now must give. Nearly all
// is cached; the rest reads indexes and contents of what is.
type cacheWorld struct {
	host string
	base string
	req  Request
	want v1.Hash
	// the cache in the registry, and the one on disk
	manifest v1.Manifest
	tags     []string
	sets     map[string]*cache.Set
	dir      string

	mu sync.Mutex
	// lies are what is served, by cache repository and digest; nil is 404.
	lies map[string][]byte
	// damages are counted by class; builds by whether they warned, and what is wrong.
	damages                map[string]int
	builds, warning, wrong int
}

const cachedProject = `
FROM scratch AS parts
COPY a /in/a
COPY d /in/d
FROM %s
WORKDIR /w
COPY --from=parts /in/a /w/a
COPY --chown=5:6 d/ /w/d/
COPY late /w/d/
COPY --from=parts /in/d/b /w/b2
`

func newCacheWorld(t *testing.T) *cacheWorld {
	t.Helper()
	w := &cacheWorld{lies: map[string][]byte{}, damages: map[string]int{}, sets: map[string]*cache.Set{}}
	inner := ggcr.New(ggcr.Logger(stdlog.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		w.mu.Lock()
		lie, ok := w.lies[parts[2]+" "+parts[len(parts)-1]]
		w.mu.Unlock()
		switch {
		case !ok || r.Method != http.MethodGet && r.Method != http.MethodHead:
			inner.ServeHTTP(rw, r)
		case lie == nil:
			rw.WriteHeader(http.StatusNotFound)
		default:
			_, _ = rw.Write(lie)
		}
	}))
	t.Cleanup(srv.Close)
	w.host = strings.TrimPrefix(srv.URL, "http://")
	epoch := time.Unix(1_000_000_000, 0)
	w.req = Request{Dockerfile: "Dockerfile", Epoch: &epoch, Output: Output{Compression: "gzip"}}
	project := map[string]string{"Dockerfile": "FROM scratch\nCOPY a /etc/passwd\nCOPY a /base/\n", "a": "root:x:0:0::/:/bin/sh\n"}
	w.req.Context = contextDir(t, project)
	w.build(t, w.req, "base")
	w.base = w.host + "/base:1"
	project = map[string]string{"Dockerfile": fmt.Sprintf(cachedProject, w.base), "a": "A", "d/b": strings.Repeat("b", 3000), "d/c": "C", "late": "old"}
	w.req.Context = contextDir(t, project)
	r := w.req
	w.dir = filepath.Join(t.TempDir(), "cache")
	r.Cache = CacheOptions{Repos: []string{w.host + "/cache", "oci:" + w.dir}}
	w.build(t, r, "first")
	if err := os.WriteFile(filepath.Join(w.req.Context, "late"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.want = w.build(t, w.req, "want")
	w.readSets(t)
	return w
}

// client forgets nothing of earlier builds, for there are none, and is quick to give up.
func (w *cacheWorld) client(t *testing.T) *registry.Client {
	t.Helper()
	c, err := registry.New(registry.Options{Timing: registry.Timing{FirstDelay: time.Millisecond, RetryBudget: 30 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *cacheWorld) build(t *testing.T, r Request, to string, what ...string) v1.Hash {
	t.Helper()
	c := w.client(t)
	defer c.Close()
	r.Dir = t.TempDir()
	r.Output.Destinations = []string{w.host + "/" + to + ":1"}
	core, warnings := observer.New(zapcore.WarnLevel)
	b := &Builder{Registry: c, Log: NewLog(zap.New(core), nil), Isolation: isolation.Status{Reason: errors.New("not in this test")}}
	res, err := b.Build(t.Context(), r)
	if err != nil {
		t.Fatalf("%s %v: %v", to, what, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.builds++
	if warnings.Len() > 0 {
		w.warning++
	}
	return res.Digest
}

// damaged counts a damage.
func (w *cacheWorld) damaged(class string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.damages[class]++
}

// summary is one line about what was built since the last one.
func (w *cacheWorld) summary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	line := fmt.Sprintf("%d builds, %d with warnings, %d wrong images; damages:", w.builds, w.warning, w.wrong)
	for _, class := range slices.Sorted(maps.Keys(w.damages)) {
		line += fmt.Sprintf(" %s %d,", class, w.damages[class])
	}
	w.damages, w.builds, w.warning, w.wrong = map[string]int{}, 0, 0, 0
	return strings.TrimSuffix(line, ",")
}

// readSets reads what the cache in the registry has.
func (w *cacheWorld) readSets(t *testing.T) {
	t.Helper()
	repo, err := name.NewRepository(w.host + "/cache")
	if err != nil {
		t.Fatal(err)
	}
	if w.tags, err = ggcrremote.List(repo); err != nil || len(w.tags) == 0 {
		t.Fatalf("the cache has the tags %v: %v", w.tags, err)
	}
	for _, tag := range w.tags {
		raw, err := ggcrremote.Get(repo.Tag(tag))
		if err != nil {
			t.Fatal(err)
		}
		m, err := v1.ParseManifest(bytes.NewReader(raw.Manifest))
		if err != nil {
			t.Fatal(err)
		}
		z, err := zstd.NewReader(bytes.NewReader(m.Config.Data))
		if err != nil {
			t.Fatal(err)
		}
		set := &cache.Set{}
		if err := json.NewDecoder(z).Decode(set); err != nil {
			t.Fatal(err)
		}
		z.Close()
		w.sets[tag] = set
		w.manifest = *m
	}
}

// push stores a Set, whatever is in it, and a manifest that change may have changed.
func (w *cacheWorld) push(t *testing.T, repo, tag string, raw []byte, change func(*v1.Manifest)) {
	t.Helper()
	config := static.NewLayer(raw, w.manifest.Config.MediaType)
	d, err := partial.Descriptor(config)
	if err != nil {
		t.Fatal(err)
	}
	d.Data = raw
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: *d, Layers: []v1.Descriptor{}}
	if change != nil {
		change(&m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	c := w.client(t)
	defer c.Close()
	if err := c.PushArtifact(t.Context(), w.host+"/"+repo+":"+tag, config, b); err != nil {
		t.Fatal(err)
	}
}

func packed(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(raw, nil)
}

// TestDamagedCache damages a cache in every way that is no forgery, and builds: no build may fail, and no image may be another
// than the one that is built without a cache.
func TestDamagedCache(t *testing.T) {
	w := newCacheWorld(t)
	_ = w.summary() // of what was built to begin with
	for _, place := range []string{"registry", "directory"} {
		t.Run(place, func(t *testing.T) {
			for worker := range 2 {
				t.Run(fmt.Sprint(worker), func(t *testing.T) {
					t.Parallel()
					for i := worker; i < *damages && !t.Failed(); i += 2 {
						rnd := rand.New(rand.NewPCG(uint64(i), 6))
						if place == "registry" {
							w.damagedRegistry(t, i, rnd)
						} else {
							w.damagedDirectory(t, i, rnd)
						}
					}
				})
			}
		})
		t.Logf("%s: %s", place, w.summary())
	}
}

// judge builds with a cache, twice: what the first build repaired serves the second.
func (w *cacheWorld) judge(t *testing.T, repo, what string, i int) {
	t.Helper()
	r := w.req
	r.Cache = CacheOptions{Repos: []string{repo}, TTL: 24 * time.Hour}
	for n := range 1 + i%2 {
		if got := w.build(t, r, fmt.Sprintf("out%d-%d", i, n), what); got != w.want {
			w.mu.Lock()
			w.wrong++
			w.mu.Unlock()
			t.Errorf("damage %d, build %d, %s: the image is %s, want %s", i, n, what, got, w.want)
		}
	}
	if i%25 == 0 {
		ref, err := name.ParseReference(fmt.Sprintf("%s/out%d-0:1", w.host, i))
		if err != nil {
			t.Fatal(err)
		}
		img, err := ggcrremote.Image(ref)
		if err == nil {
			err = validate.Image(img)
		}
		if err != nil {
			t.Errorf("damage %d, %s: %v", i, what, err)
		}
	}
}

func (w *cacheWorld) damagedRegistry(t *testing.T, i int, rnd *rand.Rand) {
	t.Helper()
	repo := fmt.Sprintf("damaged%d", i)
	what := "nothing"
	victim := w.tags[rnd.IntN(len(w.tags))]
	for _, tag := range w.tags {
		set, raw, change := w.sets[tag], packed(t, w.sets[tag]), func(*v1.Manifest) {}
		if tag == victim {
			switch rnd.IntN(4) {
			case 0:
				raw, what = w.damagedBytes(rnd, raw)
				w.damaged("bytes of records")
			case 1:
				change, what = damagedManifest(rnd)
				w.damaged("manifest")
			case 2:
				w.lie(t, rnd, repo, set)
				what = "blobs"
				w.damaged("layers and layer indexes")
			default:
				w.damaged("fields of records")
				raw, what = w.damagedRecords(t, rnd, set)
			}
		}
		w.push(t, repo, tag, raw, change)
	}
	w.judge(t, w.host+"/"+repo, what, i)
}

// damagedBytes flips, cuts, swaps or lengthens.
func (w *cacheWorld) damagedBytes(rnd *rand.Rand, b []byte) ([]byte, string) {
	b = slices.Clone(b)
	switch n := rnd.IntN(len(b)); rnd.IntN(6) {
	case 0:
		return b[:n], fmt.Sprintf("cut at %d", n)
	case 1:
		return append(b, b[:n]...), fmt.Sprintf("%d bytes more", n)
	case 2:
		copy(b[n:], b[:len(b)-n])
		return b, fmt.Sprintf("moved by %d", n)
	case 3:
		return []byte{}, "empty"
	case 4:
		clear(b[n:])
		return b, fmt.Sprintf("zeros from %d", n)
	default:
		b[n] ^= 1 << rnd.IntN(8)
		return b, fmt.Sprintf("a bit of byte %d", n)
	}
}

func damagedManifest(rnd *rand.Rand) (func(*v1.Manifest), string) {
	all := []struct {
		what string
		do   func(*v1.Manifest)
	}{
		{"config of another type", func(m *v1.Manifest) { m.Config.MediaType = types.OCIConfigJSON }},
		{"config of another size", func(m *v1.Manifest) { m.Config.Size++ }},
		{"config of another digest", func(m *v1.Manifest) { m.Config.Digest.Hex = strings.Repeat("a", 64) }},
		{"no config", func(m *v1.Manifest) { m.Config = v1.Descriptor{} }},
		{"no data", func(m *v1.Manifest) { m.Config.Data = nil }},
		{"other data", func(m *v1.Manifest) { m.Config.Data = []byte("x") }},
		{"another kind of manifest", func(m *v1.Manifest) { m.MediaType = types.DockerManifestSchema2 }},
		{"no type", func(m *v1.Manifest) { m.MediaType = "" }},
		{"another version", func(m *v1.Manifest) { m.SchemaVersion = 1 }},
	}
	it := all[rnd.IntN(len(all))]
	return it.do, it.what
}

// lie makes the registry serve damaged layers and layer indexes, or say that they are gone.
func (w *cacheWorld) lie(t *testing.T, rnd *rand.Rand, repo string, set *cache.Set) {
	t.Helper()
	var all []v1.Descriptor
	for _, r := range set.Records {
		all = append(all, r.Layer, *r.Index)
	}
	for _, b := range set.Bases {
		all = append(all, b.Index)
	}
	for range 1 + rnd.IntN(3) {
		d := all[rnd.IntN(len(all))]
		var lie []byte
		switch rnd.IntN(3) {
		case 0:
		case 1:
			lie = w.blob(t, all[rnd.IntN(len(all))])
		default:
			lie, _ = w.damagedBytes(rnd, w.blob(t, d))
		}
		w.mu.Lock()
		w.lies[repo+" "+d.Digest.String()] = lie
		w.mu.Unlock()
	}
}

func (w *cacheWorld) blob(t *testing.T, d v1.Descriptor) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "blobs", "sha256", d.Digest.Hex))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// damagedRecords changes fields of records as JSON. Their check stays as it was: who could change that too could as well store what he
// likes as a layer.
func (w *cacheWorld) damagedRecords(t *testing.T, rnd *rand.Rand, set *cache.Set) ([]byte, string) {
	t.Helper()
	raw, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	var what []string
	for range 1 + rnd.IntN(3) {
		list := []string{"records", "bases"}[min(rnd.IntN(5), 4)/4]
		records, _ := tree[list].([]any)
		if len(records) == 0 {
			continue
		}
		record := records[rnd.IntN(len(records))].(map[string]any)  //nolint:forcetypeassert // our own
		another := records[rnd.IntN(len(records))].(map[string]any) //nolint:forcetypeassert // our own
		field := pick(rnd, record)
		what = append(what, list+" "+damageField(rnd, record, another, field))
	}
	return packed(t, tree), strings.Join(what, ", ")
}

func pick(rnd *rand.Rand, m map[string]any) string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[rnd.IntN(len(keys))]
}

func damageField(rnd *rand.Rand, record, another map[string]any, field string) string {
	switch v := record[field].(type) {
	case map[string]any:
		if rnd.IntN(2) == 0 {
			other, _ := another[field].(map[string]any)
			if other == nil {
				other = map[string]any{}
			}
			return field + "." + damageField(rnd, v, other, pick(rnd, v))
		}
	case []any:
		if len(v) > 1 && rnd.IntN(2) == 0 {
			v[0], v[1] = v[1], v[0]
			return field + " in another order"
		}
	case string:
		if len(v) > 0 && rnd.IntN(2) == 0 {
			b := []byte(v)
			b[rnd.IntN(len(b))] = "0123456789abcdef"[rnd.IntN(16)]
			record[field] = string(b)
			return field + " in a letter"
		}
	case float64:
		if rnd.IntN(2) == 0 {
			record[field] = v + 1 - 2*float64(rnd.IntN(2))
			return field + " by one"
		}
	}
	switch rnd.IntN(3) {
	case 0:
		delete(record, field)
		return "without " + field
	case 1:
		record[field], another[field] = another[field], record[field]
		return "with another's " + field
	default:
		record[field] = []any{"", nil, 7, map[string]any{}, []any{nil}, true}[rnd.IntN(6)]
		return fmt.Sprintf("with %s %v", field, record[field])
	}
}

// damagedDirectory damages files of a copy of the cache on disk.
func (w *cacheWorld) damagedDirectory(t *testing.T, i int, rnd *rand.Rand) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(dir + "/blobs/sha256/*")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, dir+"/index.json", dir+"/oci-layout")
	var what []string
	for range 1 + rnd.IntN(4) {
		file := files[rnd.IntN(len(files))]
		how := w.damageFile(t, rnd, file, files[rnd.IntN(len(files))])
		class := how
		if regexp.MustCompile(`\d`).MatchString(how) {
			class = "bytes"
		}
		w.damaged(class)
		what = append(what, filepath.Base(file)+": "+how)
	}
	w.judge(t, "oci:"+dir, strings.Join(what, ", "), i)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func (w *cacheWorld) damageFile(t *testing.T, rnd *rand.Rand, file, another string) string {
	t.Helper()
	must := func(err error) {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	fi, err := os.Lstat(file)
	if err != nil || !fi.Mode().IsRegular() {
		return "gone before"
	}
	switch rnd.IntN(8) {
	case 0:
		must(os.Remove(file))
		return "gone"
	case 1:
		must(os.Remove(file))
		must(os.Mkdir(file, 0o755))
		return "a directory"
	case 2:
		if fi, err := os.Lstat(another); err == nil && fi.Mode().IsRegular() { // not the link to what never ends
			other, err := os.ReadFile(another)
			must(err)
			must(os.WriteFile(file, other, 0o600))
		}
		return "another's bytes"
	case 3:
		must(os.Remove(file))
		must(os.Symlink("/dev/zero", file))
		return "a link to what never ends"
	default:
		b, err := os.ReadFile(file)
		must(err)
		if len(b) == 0 {
			return "empty before"
		}
		b, what := w.damagedBytes(rnd, b)
		must(os.WriteFile(file, b, 0o600))
		return what
	}
}

// TestEvicted takes every subset of the records away.
func TestEvicted(t *testing.T) {
	w := newCacheWorld(t)
	var records int
	for _, set := range w.sets {
		records += len(set.Records)
	}
	for gone := range 1 << records {
		if *damages <= 1000 && gone%7 > 0 {
			continue
		}
		repo, n, what := fmt.Sprintf("evicted%d", gone), 0, ""
		for _, tag := range w.tags {
			set := *w.sets[tag]
			set.Records = slices.DeleteFunc(slices.Clone(set.Records), func(r cache.Record) bool {
				n++
				if gone&(1<<(n-1)) > 0 {
					what += r.Text + ", "
				}
				return gone&(1<<(n-1)) > 0
			})
			w.push(t, repo, tag, packed(t, set), nil)
		}
		w.judge(t, w.host+"/"+repo, "without "+what, gone)
	}
	t.Logf("%d records: %s", records, w.summary())
}
