// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const mainContext = "context"

// contextScheme is what a named context's value begins with if it is no directory.
var contextScheme = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+.-]*)://`)

// readContexts brings the names of contexts into the form in which they are
// looked for: "alpine" for "docker.io/library/alpine:latest", a normal platform.
// What their values mean is left to whoever needs them.
func (p *planner) readContexts() error {
	p.contexts = map[string]NamedContext{}
	for name, value := range p.req.Contexts {
		bare, platform, hasPlatform := strings.Cut(name, "::")
		key, err := contextName(bare)
		if err != nil {
			return fmt.Errorf("invalid context name %s: %w", name, err)
		}
		if hasPlatform {
			parsed, err := platforms.Parse(platform)
			if err != nil {
				return fmt.Errorf("invalid context name %s: %w", name, err)
			}
			key += "::" + platforms.FormatAll(platforms.Normalize(parsed))
		}
		p.contexts[key] = NamedContext{Name: name, Value: value}
	}
	return nil
}

func contextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

// findContext looks for a context of a stage's or an image's name, first for
// the one of the platform. "scratch" and "context" are no names of contexts.
func (p *planner) findContext(name string, platform ocispec.Platform) (NamedContext, bool) {
	if len(p.contexts) == 0 || strings.EqualFold(name, scratch) || strings.EqualFold(name, mainContext) {
		return NamedContext{}, false
	}
	key, err := contextName(name)
	if err != nil {
		return NamedContext{}, false
	}
	if found, ok := p.contexts[key+"::"+platforms.FormatAll(platforms.Normalize(platform))]; ok {
		return found, true
	}
	found, ok := p.contexts[key]
	return found, ok
}

// replaceStage lets a named context take the place of a stage, with all that is in it.
func (p *planner) replaceStage(n *node, alias string) bool {
	if alias == "" {
		return false
	}
	platform := p.req.Platform
	if n.platform != nil {
		platform = *n.platform
	}
	found, ok := p.findContext(alias, platform)
	if ok {
		n.unusable = n.bind(found)
	}
	return ok
}

// replaceImage lets a named context take the place of an image.
func (p *planner) replaceImage(n *node) error {
	if n.replaced || n.named {
		return nil
	}
	found, ok := p.findContext(n.ref, p.platformOf(n))
	if !ok {
		return nil
	}
	n.named = true
	return n.bind(found)
}

// bind makes a node what a named context's value says.
func (n *node) bind(found NamedContext) error {
	n.ref = ""
	scheme, rest := "", found.Value
	if m := contextScheme.FindStringSubmatch(found.Value); m != nil {
		scheme, rest = strings.ToLower(m[1]), found.Value[len(m[0]):]
	}
	switch scheme {
	case "docker-image":
		ref, err := imageRef(rest)
		if err != nil {
			return fmt.Errorf("context %s: %w", found.Name, err)
		}
		n.ref = ref
	case "oci-layout":
		if dir, digest, ok := strings.Cut(rest, "@"); dir == "" || ok && digest == "" || !ok && !strings.Contains(rest, ":") {
			return fmt.Errorf("oci-layout reference %q of context %s has neither digest nor tag", rest, found.Name)
		}
		n.ref, n.layout = rest, true
	case "", "http", "https", "git", "ssh":
		if rest == "" {
			return fmt.Errorf("context %s has no value", found.Name)
		}
		n.context = &found
	default:
		return fmt.Errorf("unsupported context source %s for %s", scheme, found.Name)
	}
	return nil
}
