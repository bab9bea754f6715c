// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// normalise gives one spelling to a platform; none is Linux on this machine's
// architecture.
func normalise(p v1.Platform) v1.Platform {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	n := platforms.Normalize(toSpec(p))
	p.OS, p.Architecture, p.Variant = n.OS, n.Architecture, n.Variant
	return p
}

func toSpec(p v1.Platform) ocispec.Platform {
	return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

// choose picks the best entry of an index as containerd's matcher orders them:
// the same variant, then older ones that the processor can run. Among equals the
// first wins. An entry without a platform serves only when it is the only image.
func choose(entries []v1.Descriptor, want v1.Platform) (v1.Descriptor, error) {
	matcher := platforms.Only(toSpec(want))
	var best, bare *v1.Descriptor
	var have []string
	images := 0
	for i := range entries {
		e := &entries[i]
		if !e.MediaType.IsImage() || isAttestation(*e) {
			continue
		}
		images++
		if e.Platform == nil {
			bare = e
			continue
		}
		p := platforms.Normalize(toSpec(*e.Platform))
		have = append(have, platforms.Format(p))
		if matcher.Match(p) && (best == nil || matcher.Less(p, platforms.Normalize(toSpec(*best.Platform)))) {
			best = e
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case bare != nil && images == 1:
		return *bare, nil
	case images == 0:
		return v1.Descriptor{}, unsupported("the index has no image")
	}
	slices.Sort(have)
	return v1.Descriptor{}, unsupported("no manifest for platform %s; there are: %s", platforms.Format(toSpec(want)), escape(strings.Join(slices.Compact(have), ", ")))
}

// isAttestation recognises what BuildKit puts beside images.
func isAttestation(d v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		(d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown")
}
