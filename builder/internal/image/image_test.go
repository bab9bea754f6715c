// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

func at(sec int64) time.Time { return time.Unix(sec, 0).UTC() }

func layers(t *testing.T, n int, c layer.Compression) []v1.Layer {
	t.Helper()
	s, err := store.Open(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var out []v1.Layer
	for i := range n {
		l, err := layer.Write(t.Context(), s, []tree.Change{{Path: fmt.Sprint(i), Inode: tree.NewDir(tree.Meta{Mode: 0o755})}}, c)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

func spec(t *testing.T) Spec {
	t.Helper()
	ls := layers(t, 3, layer.Compression{Algorithm: "gzip"})
	id, err := ls[0].DiffID()
	if err != nil {
		t.Fatal(err)
	}
	base := at(100)
	s := Spec{Base: ls[:1]}
	s.Config.Architecture, s.Config.OS = "amd64", "linux"
	s.Config.RootFS.DiffIDs = []digest.Digest{digest.Digest(id.String())}
	s.Config.History = []ocispec.History{{Created: &base, CreatedBy: "base"}}
	s.Steps = []Step{
		{CreatedBy: "ENV A=1"},
		{CreatedBy: "COPY", Layer: ls[1], Created: at(200)},
		{CreatedBy: "USER x"},
		{CreatedBy: "RUN", Layer: ls[2], Created: at(300)},
		{CreatedBy: "CMD"},
		{CreatedBy: ""},
	}
	return s
}

func history(t *testing.T, img v1.Image) string {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range c.History {
		out = append(out, fmt.Sprintf("%s %d %v", h.CreatedBy, h.Created.Unix(), h.EmptyLayer))
	}
	return strings.Join(append(out, fmt.Sprint(c.Created.Unix())), "; ")
}

func TestNew(t *testing.T) {
	epoch := at(50)
	tests := []struct {
		name  string
		epoch *time.Time
		want  string
	}{
		{"times", nil, "base 100 false; ENV A=1 200 true; COPY 200 false; USER x 200 true; RUN 300 false; CMD 300 true; 300"},
		{"epoch", &epoch, "base 100 false; ENV A=1 50 true; COPY 50 false; USER x 50 true; RUN 50 false; CMD 50 true; 50"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := spec(t)
			s.Epoch = tt.epoch
			img, err := New(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(img); err != nil {
				t.Error(err)
			}
			if d := cmp.Diff(tt.want, history(t, img)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestMediaTypesAreOfOneFamily(t *testing.T) {
	for _, docker := range []bool{false, true} {
		s := spec(t)
		s.Docker = docker
		// The other family's base.
		s.Base = layers(t, 1, layer.Compression{Algorithm: "gzip", Docker: !docker})
		img, err := New(s)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, mt := range []types.MediaType{m.MediaType, m.Config.MediaType, m.Layers[0].MediaType, m.Layers[1].MediaType} {
			if strings.Contains(string(mt), "docker") != docker {
				t.Errorf("docker %v: %s", docker, mt)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Spec)
		want   string
	}{
		{"zstd in Docker's format", func(s *Spec) { s.Docker = true; s.Base = []v1.Layer{zstdLayer(t)} }, "KANIKO_IMAGE_FORMAT=oci"},
		{"foreign layer", func(s *Spec) { s.Base = []v1.Layer{static.NewLayer([]byte("x"), types.DockerForeignLayer)} }, "not supported"},
		{"configuration and layers disagree", func(s *Spec) { s.Base = nil }, "0 layers, but its configuration lists 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := spec(t)
			tt.change(&s)
			if _, err := New(s); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func zstdLayer(t *testing.T) v1.Layer {
	t.Helper()
	return layers(t, 1, layer.Compression{Algorithm: "zstd"})[0]
}

func TestNothingNewHasNoTime(t *testing.T) {
	for _, s := range []Spec{{}, {Steps: []Step{{CreatedBy: "ENV a=b"}}}} {
		img, err := New(s)
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if !c.Created.IsZero() || len(c.History) > 0 && !c.History[0].Created.IsZero() {
			t.Errorf("created %v, history %v", c.Created, c.History)
		}
	}
}
