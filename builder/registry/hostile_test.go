// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// shelf is a place for blobs that are in no registry.
type shelf map[v1.Hash][]byte

func (s shelf) put(b []byte) v1.Hash {
	h, _, _ := v1.SHA256(bytes.NewReader(b)) // memory can be read
	s[h] = b
	return h
}

func (s shelf) open(h v1.Hash) (io.ReadCloser, error) {
	b, ok := s[h]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: h.String(), Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// serve answers for a registry.
func (s shelf) serve(w http.ResponseWriter, r *http.Request) bool {
	h, err := v1.NewHash(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
	b, ok := s[h]
	if err != nil || !ok {
		return false
	}
	_, _ = w.Write(b)
	return true
}

// image puts an index, a manifest and a config on the shelf and returns the index's digest. CONFIG and MANIFEST in them stand for
// digest and size of what they refer to, LAYER for some layer's.
func (s shelf) image(index, manifest, config string) v1.Hash {
	descriptor := func(h v1.Hash) string { return fmt.Sprintf(`"digest":"%s","size":%d`, h, len(s[h])) }
	layer := fmt.Sprintf(`"digest":"sha256:%064d","size":10`, 7)
	m := strings.ReplaceAll(manifest, "CONFIG", descriptor(s.put([]byte(config))))
	m = strings.ReplaceAll(m, "LAYER", layer)
	return s.put([]byte(strings.ReplaceAll(index, "MANIFEST", descriptor(s.put([]byte(m))))))
}

const (
	goodIndex    = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",MANIFEST,"platform":{"os":"linux","architecture":"amd64"}}]}`
	goodManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",CONFIG},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",LAYER}]}`
	goodConfig   = `{"os":"linux","architecture":"amd64","config":{"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000008"]},"history":[{"created_by":"x"}]}`
)

// TestHostileImages are T20 to T23 and the limits of hardening for what is no layer: from a registry and from elsewhere, every
// document is refused by one sentence, or read.
func TestHostileImages(t *testing.T) {
	entry := `{"mediaType":"application/vnd.oci.image.manifest.v1+json",MANIFEST,"platform":{"os":"linux","architecture":"arm64"}}`
	digest := func(d string) string {
		return strings.Replace(goodManifest, "LAYER", `"digest":"`+d+`","size":10`, 1)
	}
	tests := []struct {
		name                    string
		index, manifest, config string
		says                    string // "" if it is good
	}{
		{name: "good"},
		{name: "T20 more diffIDs than layers", config: strings.Replace(goodConfig, `"diff_ids":[`, `"diff_ids":["sha256:`+strings.Repeat("1", 64)+`",`, 1), says: "1 layers, the config 2 diffIDs"},
		{name: "T20 fewer diffIDs", config: strings.Replace(goodConfig, `"sha256:0000000000000000000000000000000000000000000000000000000000000008"`, "", 1), says: "1 layers, the config 0 diffIDs"},
		{name: "T20 no layers", manifest: strings.Replace(goodManifest, `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",LAYER}`, "", 1), config: `{"rootfs":{"diff_ids":[]}}`},
		{name: "T21 path for a digest", manifest: digest("sha256:../../../../etc/passwd"), says: "not valid JSON"},
		{name: "T21 upper case", manifest: digest("sha256:" + strings.Repeat("A", 64)), says: "not valid JSON"},
		{name: "T21 short", manifest: digest("sha256:00"), says: "not valid JSON"},
		{name: "T21 unknown algorithm", manifest: digest("md5:" + strings.Repeat("0", 32)), says: "not valid JSON"},
		{name: "T22 manifest and index at once", manifest: strings.Replace(goodManifest, `{`, `{"manifests":[],`, 1), says: "index too"},
		{name: "T22 index and manifest at once", index: strings.Replace(goodIndex, `{`, `{"layers":[],`, 1), says: "index too"},
		{name: "T22 schema 1", manifest: `{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}`, says: "schema 1"},
		{name: "T22 index in an index", manifest: strings.Replace(goodIndex, "MANIFEST", "CONFIG", 1), says: "an index inside an index"},
		{name: "T22 1001 entries", index: strings.Replace(goodIndex, "[", "["+strings.Repeat(entry+",", 1000), 1), says: "more than 1000 entries"},
		{name: "T22 large manifest", manifest: strings.Replace(goodManifest, "{", `{"annotations":{"a":"`+strings.Repeat("a", maxManifest)+`"},`, 1), says: "larger than 4 MiB"},
		{name: "T22 large index", index: strings.Replace(goodIndex, "{", `{"annotations":{"a":"`+strings.Repeat("a", maxManifest)+`"},`, 1), says: "larger than 4 MiB"},
		{name: "T22 513 layers", manifest: strings.Replace(goodManifest, `"layers":[`, `"layers":[`+strings.Repeat(`{"mediaType":"application/vnd.oci.image.layer.v1.tar",LAYER},`, 512), 1), says: "more than 512 layers"},
		{name: "T22 other platform", index: strings.Replace(goodIndex, "amd64", "s390x", 1), says: "no manifest for platform linux/amd64"},
		{name: "T22 urls", manifest: strings.Replace(goodManifest, "LAYER", `LAYER,"urls":["http://169.254.169.254/"]`, 1), says: "is foreign"},
		{name: "T22 encrypted", manifest: strings.Replace(goodManifest, "tar+gzip", "tar+gzip+encrypted", 1), says: "is encrypted"},
		{name: "T22 data that is something else", manifest: strings.Replace(goodManifest, "CONFIG", `CONFIG,"data":"e30="`, 1)},
		{name: "T22 negative size", manifest: strings.Replace(goodManifest, "LAYER", strings.Replace(fmt.Sprintf(`"digest":"sha256:%064d","size":10`, 7), "10", "-10", 1), 1), says: "negative size"},
		{name: "T23 large config", config: strings.Replace(goodConfig, `A=1`, strings.Repeat("e", maxConfig), 1), says: "larger than 8 MiB"},
		{name: "T23 Entrypoint that is no list", config: strings.Replace(goodConfig, `"Env"`, `"Entrypoint":{"a":1},"Env"`, 1), says: "not valid JSON"},
		{name: "T23 nulls", config: strings.Replace(goodConfig, `{"Env":["A=1"]}`, "null", 1)},
		{name: "T23 windows", config: strings.Replace(goodConfig, "linux", "windows", 1), says: "a Windows image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			or := func(s, good string) string {
				if s == "" {
					return good
				}
				return s
			}
			s := shelf{}
			top := s.image(or(tt.index, goodIndex), or(tt.manifest, goodManifest), or(tt.config, goodConfig))
			_, err := Elsewhere("oci-layout://x", top, amd64, s.open)
			judge(t, err, tt.says)
			f := newFake(t, s.serve)
			_, err = newClient(t, Options{}).Resolve(context.Background(), f.Host+"/base@"+top.String(), amd64)
			judge(t, err, tt.says)
		})
	}
}

func judge(t *testing.T, err error, says string) {
	t.Helper()
	if says == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) || e.Class != Unsupported && e.Class != Integrity || !strings.Contains(err.Error(), says) {
		t.Errorf("error %v, want %q", err, says)
	}
}

// FuzzImage reads index, manifest and config from elsewhere: no panic, errors of our own, and what is accepted has as many layers
// as diffIDs and is what its digest says.
func FuzzImage(f *testing.F) {
	f.Add(goodIndex, goodManifest, goodConfig)
	f.Add(goodManifest, goodManifest, `{"rootfs":null}`)
	f.Add(`{"manifests":[{MANIFEST}]}`, `{"config":{CONFIG}}`, `{"config":{"User":"../../x","ExposedPorts":{"":{}}}}`)
	f.Fuzz(func(t *testing.T, index, manifest, config string) {
		s := shelf{}
		img, err := Elsewhere("x", s.image(index, manifest, config), amd64, s.open)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) && !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("an error without a class: %v", err)
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Fatalf("not one line of text: %q", err)
			}
			return
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := img.RawConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := hashBytes(m.Config.Digest.Algorithm, raw); err != nil || got != m.Config.Digest {
			t.Fatalf("the config is %s, not %s", got, m.Config.Digest)
		}
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		if len(layers) != len(m.Layers) || len(c.RootFS.DiffIDs) != len(m.Layers) || len(m.Layers) > maxLayers {
			t.Fatalf("%d layers, %d descriptors, %d diffIDs", len(layers), len(m.Layers), len(c.RootFS.DiffIDs))
		}
	})
}
